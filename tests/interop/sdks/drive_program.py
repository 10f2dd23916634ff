"""google-api-python-client with nothing changed but its root URL: three pages, two uploads."""

import io
import json
import sys
from importlib.resources import files

from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build_from_document
from googleapiclient.http import MediaIoBaseUpload

root_url, token = sys.argv[1:]
documents = files("googleapiclient.discovery_cache") / "documents"
document = json.loads((documents / "drive.v3.json").read_text("utf-8"))
document["rootUrl"] = root_url
document.pop("mtlsRootUrl", None)
drive = build_from_document(document, credentials=Credentials(token))

names, request = [], drive.files().list(pageSize=1)
while request is not None:
    answer = request.execute()
    names += [file["name"] for file in answer["files"]]
    request = drive.files().list_next(request, answer)


def upload(resumable: bool) -> str:
    media = MediaIoBaseUpload(
        io.BytesIO(b"x" * 300_000), "text/plain", chunksize=256 * 1024, resumable=resumable
    )
    created = drive.files().create(body={"name": "notes"}, media_body=media).execute()
    return str(created["id"])


json.dump({"names": names, "whole": upload(False), "in pieces": upload(True)}, sys.stdout)
