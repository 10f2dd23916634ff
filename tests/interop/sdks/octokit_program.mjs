// @octokit/rest with nothing changed but its base URL: three pages, a renamed repository, a file.
import { Octokit } from "@octokit/rest";

const [baseUrl, auth] = process.argv.slice(2);
const octokit = new Octokit({ baseUrl, auth });
const repositories = await octokit.paginate(octokit.rest.repos.listForAuthenticatedUser);
const renamed = await octokit.rest.repos.get({ owner: "octo", repo: "old-name" });
const written = await octokit.rest.repos.createOrUpdateFileContents({
  owner: "octo",
  repo: "new-name",
  path: "docs/notes.txt",
  message: "add notes",
  content: Buffer.from("what the program wrote").toString("base64"),
});
console.log(
  JSON.stringify({
    names: repositories.map((one) => one.name),
    renamed: renamed.data.full_name,
    written: written.data.content.path,
  }),
);
