"""PyGithub with nothing changed but its base URL: three pages, a renamed repository, a file."""

import json
import sys

from github import Auth, Github

base_url, token = sys.argv[1:]
github = Github(base_url=base_url, auth=Auth.Token(token))
names = [repository.name for repository in github.get_user().get_repos()]
renamed = github.get_repo("octo/old-name")
written = renamed.create_file("docs/notes.txt", "add notes", "what the program wrote")
json.dump(
    {
        "names": names,
        "renamed": renamed.full_name,
        "issues": [issue.title for issue in renamed.get_issues()],
        "written": written["content"].path,
    },
    sys.stdout,
)
