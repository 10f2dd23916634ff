"""Which of a user's connections are to the account by which the user is known."""

from authserver.storage.contract import Database
from authserver.storage.records import Grant
from chassis.spiffe_id import Workload
from tests.support.storage_fixtures import OWNER, Store, grant, tokens

ACME = "https://acme.example.com"


async def test_it_is_of_the_same_issuer_and_subject_and_of_the_same_owner(
    database: Database,
) -> None:
    store = Store(database)
    session, _ = await store.sign_in(
        grant("alice"),
        Grant("acme-again", ACME, "alice", tokens()),
        Grant("hub", "https://hub.example.com", "alice", tokens()),
        Grant("acme-of-bob", ACME, "bob", tokens()),
    )
    other, _ = await store.sign_in(grant("bob"))

    async def identifying(user_id: str, owner: Workload = OWNER, owner_uid: str = "") -> set[str]:
        found = await store.connections.identifying(user_id, owner, owner_uid)
        assert {connection.key.user_id for connection in found} <= {user_id}
        return {connection.key.upstream for connection in found}

    assert await identifying(session.user_id) == {"acme", "acme-again"}
    assert await identifying(other.user_id) == {"acme"}
    assert await identifying("nobody") == set()
    assert await identifying(session.user_id, Workload("elsewhere", OWNER.name)) == set()
    assert await identifying(session.user_id, Workload(OWNER.namespace, "other")) == set()
    assert await identifying(session.user_id, owner_uid="uid-of-another") == set()
