from tests.sidecar.rig import Rig

async def test_x(r: Rig) -> None:
    reply = await r.ask()
    print(reply)
    reply = await r.ask({"upstream":"github"})
    print(reply)
    reply = await r.ask({"upstream":"github"})
    print(reply)
    assert len(r.authserver.received) == 2
    print(r.authserver.received)
    print(await r.ask(jwt="x"))
    print(await r.ask(path="/.well-known/oauth-protected-resource/mcp", method="GET"))
    print(await r.send(b"GARBAGE\r\n\r\n"))
