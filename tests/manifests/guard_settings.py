"""The webhook settings of an overlay, as the guard reads them."""

from pathlib import Path
from typing import Any

import yaml

from tests.webhook.pods import CA
from webhook.settings import Settings, check


def settings_under(configuration: dict[str, Any], **changes: Any) -> Settings:
    raw = yaml.safe_load(configuration["data"]["webhook.yaml"])
    raw["authserver"]["caFile"] = CA
    return check(raw | changes, Path())
