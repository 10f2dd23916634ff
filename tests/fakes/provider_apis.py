"""Parts of GitHub's and Google Drive's APIs, as their SDKs meet them: links are absolute.

`base_url` is the API's own address, which it writes into its answers as providers do.
"""

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from aiohttp import web

PAGES = 3


class GitHubApi:
    """Three repositories on three pages, one that was renamed, and files that are written."""

    def __init__(self, base_url: Callable[[], str]) -> None:
        self._base_url = base_url
        self.files: dict[str, bytes] = {}

    def answer(self, method: str, target: str, body: bytes) -> web.Response:
        parts = urlsplit(target)
        match (method, parts.path.split("/")[1:]):
            case "GET", ["user"]:
                return web.json_response({"login": "octo", "url": f"{self._base_url()}/user"})
            case "GET", ["user", "repos"]:
                return self._page(int(parse_qs(parts.query).get("page", ["1"])[0]))
            case "GET", ["repos", "octo", "old-name"]:
                where = {"Location": f"{self._base_url()}/repositories/42"}
                return web.json_response({"message": "Moved"}, status=301, headers=where)
            case "GET", ["repositories", "42"]:
                return web.json_response(self._repository("new-name"))
            case "GET", ["repos", "octo", "new-name", "issues"]:
                return web.json_response([{"title": "the only one", "number": 1}])
            case "PUT", ["repos", "octo", "new-name", "contents", *path]:
                name = unquote("/".join(path))  # octokit sends its slashes encoded
                self.files[name] = base64.b64decode(json.loads(body)["content"])
                members = {"content": {"path": name}, "commit": {"sha": "1" * 40}}
                return web.json_response(members, status=201)
        return web.json_response({"message": "Not Found"}, status=404)

    def _page(self, page: int) -> web.Response:
        where = f"{self._base_url()}/user/repos?page="
        links = [f'<{where}{page + 1}>; rel="next"'] if page < PAGES else []
        links.append(f'<{where}{PAGES}>; rel="last"')
        repositories = [self._repository(f"repository-{page}")]
        return web.json_response(repositories, headers={"Link": ", ".join(links)})

    def _repository(self, name: str) -> dict[str, Any]:
        url = f"{self._base_url()}/repos/octo/{name}"
        return {
            "id": 42, "name": name, "full_name": f"octo/{name}", "url": url,
            "html_url": f"https://github.example/octo/{name}",
            "issues_url": f"{url}/issues{{/number}}", "contents_url": f"{url}/contents/{{+path}}",
        }  # fmt: skip


class DriveApi:
    """Three files on three pages, uploads at once and in pieces."""

    def __init__(self, base_url: Callable[[], str]) -> None:
        self._base_url = base_url
        self.uploaded: dict[str, bytes] = {}

    def answer(
        self, method: str, target: str, body: bytes, content_range: str | None
    ) -> web.Response:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match (method, parts.path, query.get("uploadType")):
            case "GET", "/drive/v3/files", _:
                page = int(query.get("pageToken", "1"))
                answer: dict[str, Any] = {"files": [{"id": str(page), "name": f"file-{page}"}]}
                if page < PAGES:
                    answer["nextPageToken"] = str(page + 1)
                return web.json_response(answer)
            case "POST", "/upload/drive/v3/files", "multipart":
                self.uploaded["at-once"] = body
                return web.json_response({"id": "at-once"})
            case "POST", "/upload/drive/v3/files", "resumable":
                where = f"{self._base_url()}{parts.path}?uploadType=resumable&upload_id=7"
                return web.Response(headers={"Location": where})
            case "PUT", "/upload/drive/v3/files", "resumable":
                return self._piece(body, content_range or "")
        return web.json_response({"error": {"code": 404, "message": "Not Found"}}, status=404)

    def _piece(self, body: bytes, content_range: str) -> web.Response:
        span, _, size = content_range.removeprefix("bytes ").partition("/")
        so_far = self.uploaded["in-pieces"] = self.uploaded.get("in-pieces", b"") + body
        if int(span.partition("-")[2]) + 1 < int(size):
            return web.Response(status=308, headers={"Range": f"bytes=0-{len(so_far) - 1}"})
        return web.json_response({"id": "in-pieces"})
