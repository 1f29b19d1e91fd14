from __future__ import annotations

import msgspec
import pytest
from dialogue import DIALECTS, GOLDEN, Exchange, exchanges, replay, route

EXCHANGES = exchanges()


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda e: f"{e.path.parent.name}/{e.path.stem}")
def test_a_recorded_exchange_is_answered_byte_for_byte(exchange: Exchange) -> None:
    assert replay(exchange) == exchange.reply


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda e: f"{e.path.parent.name}/{e.path.stem}")
def test_it_is_answered_by_its_own_dialect(exchange: Exchange) -> None:
    asked = route(
        exchange.method, exchange.target, exchange.body, speaker=exchange.path.parent.name
    )
    assert asked.dialect.name == exchange.path.parent.name


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda e: f"{e.path.parent.name}/{e.path.stem}")
def test_a_good_reply_is_what_the_endpoint_declares(exchange: Exchange) -> None:
    asked = route(
        exchange.method, exchange.target, exchange.body, speaker=exchange.path.parent.name
    )
    head, _, body = exchange.reply.partition("\n\n")
    status = head.split()[0]
    if status == "200":
        msgspec.json.decode(body, type=asked.endpoint.response)
    else:
        assert int(status) in range(400, 500)


def test_every_dialect_has_recorded_exchanges() -> None:
    assert {path.name for path in GOLDEN.iterdir()} >= set(DIALECTS)
