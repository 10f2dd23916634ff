"""Texts that are no SPIFFE ID of a workload of ours, for the grammar and for the SVID reader."""

TD = "example.org"
PATH = "/ns/mcp-servers/mcpserver/github"
GOOD = f"spiffe://{TD}{PATH}"
LABEL = "a" * 63

NOT_IDS = [
    # scheme
    "", "s", "spiffe:/", "spiffe://", "spiffe:/example.org" + PATH, f"Spiffe://{TD}{PATH}",
    f"SPIFFE://{TD}{PATH}", f"https://{TD}{PATH}", f" {GOOD}", f"\t{GOOD}", f"\ufeff{GOOD}",
    f"spiffe:{TD}{PATH}", f"spiffe:///{TD}{PATH}", f"//{TD}{PATH}",
    # trust domain
    f"spiffe://{PATH}", f"spiffe://Example.org{PATH}", f"spiffe://{TD}:443{PATH}",
    f"spiffe://user@{TD}{PATH}", f"spiffe://user:pass@{TD}{PATH}", f"spiffe://[::1]{PATH}",
    f"spiffe://example%2eorg{PATH}", f"spiffe://{TD}.{PATH}", f"spiffe://.{TD}{PATH}",
    f"spiffe://other.example{PATH}", f"spiffe://x{TD}{PATH}", f"spiffe://{TD}x{PATH}",
    *(f"spiffe://ex{bad}ample.org{PATH}" for bad in "$~!&'()*+,;=\\ \t\n\0\x7f\"<>[]^`{|}"),
    f"spiffe://example\u3002org{PATH}", f"spiffe://ex\u0430mple.org{PATH}",
    # path
    f"spiffe://{TD}", f"spiffe://{TD}/", f"{GOOD}/", f"spiffe://{TD}/{PATH}",
    f"spiffe://{TD}/ns//mcp-servers/mcpserver/github", f"{GOOD}/more", f"spiffe://{TD}/x{PATH}",
    f"spiffe://{TD}/ns/mcp-servers", f"spiffe://{TD}/ns/mcp-servers/mcpserver",
    f"spiffe://{TD}/ns/mcp-servers/mcpserver/", f"spiffe://{TD}/ns//mcpserver/github",
    f"spiffe://{TD}/ns/mcp-servers/sa/github", f"spiffe://{TD}/NS/mcp-servers/mcpserver/github",
    f"spiffe://{TD}/ns/mcp-servers/MCPServer/github", f"spiffe://{TD}/./ns/a/mcpserver/b",
    f"spiffe://{TD}/ns/./mcpserver/github", f"spiffe://{TD}/ns/../mcpserver/github",
    f"spiffe://{TD}/ns/a/mcpserver/..", f"spiffe://{TD}/ns/a/../a/mcpserver/b",
    f"spiffe://{TD}/ns/A/mcpserver/b", f"spiffe://{TD}/ns/a/mcpserver/B",
    f"spiffe://{TD}/ns/a_b/mcpserver/c", f"spiffe://{TD}/ns/a/mcpserver/b.c",
    f"spiffe://{TD}/ns/-a/mcpserver/b", f"spiffe://{TD}/ns/a-/mcpserver/b",
    f"spiffe://{TD}/ns/a/mcpserver/-b", f"spiffe://{TD}/ns/a/mcpserver/b-",
    f"spiffe://{TD}/ns/{LABEL}a/mcpserver/b", f"spiffe://{TD}/ns/a/mcpserver/{LABEL}b",
    f"spiffe://{TD}/ns/a/mcpserver/%62", f"spiffe://{TD}/ns/a%2Fb/mcpserver/c",
    f"spiffe://{TD}/ns/a/mcpserver/\uff47ithub", f"spiffe://{TD}/ns/a/mcpserver/\u0661",
    f"spiffe://{TD}/ns/a/mcpserver/\u0131", f"spiffe://{TD}/ns/a/mcpserver/b\u200b",
    *(f"{GOOD}{tail}" for tail in ("?", "?q=1", "#", "#f", ";", ":", "@", " ", "\0", "\n", "\r",
                                  "\r\n", "\t", "\x85", "\u2028", ", DNS:x", "\\")),
    # length
    GOOD + "x" * 2048, f"spiffe://{TD}/" + "x" * 3000,
]  # fmt: skip
