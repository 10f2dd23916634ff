// @googleapis/drive with nothing changed but its root URL: three pages, one upload.
// The client keeps the path of a root URL that a call names, and drops it from one for all calls.
import { auth, drive } from "@googleapis/drive";
import { Readable } from "node:stream";

const [rootUrl, token] = process.argv.slice(2);
const client = new auth.OAuth2();
client.setCredentials({ access_token: token });
const service = drive({ version: "v3", auth: client });

const first = await service.files.list({ pageSize: 1 }, { rootUrl });
const names = first.data.files.map((file) => file.name);
let pageToken = first.data.nextPageToken;
while (pageToken) {
  const { data } = await service.files.list({ pageSize: 1, pageToken }, { rootUrl });
  names.push(...data.files.map((file) => file.name));
  pageToken = data.nextPageToken;
}

const { data } = await service.files.create(
  {
    requestBody: { name: "notes" },
    media: { mimeType: "text/plain", body: Readable.from([Buffer.alloc(300_000, "x")]) },
  },
  { rootUrl },
);
console.log(JSON.stringify({ names, whole: data.id }));
