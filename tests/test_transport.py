"""mcp_server/transport.py: bytes become messages, bad bytes become answers, and memory is bounded."""

import asyncio
import contextlib
import json
import os
import socket

import anyio
import orjson
import pytest
from agent_kernel.base.errors import KernelError
from agent_kernel.base.limits import Limits
from agent_kernel_mcp import transport
from agent_kernel_mcp.transport import Refused, Wire, message_of
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCResponse

LIMITS = Limits()


def call(arguments: bytes, request_id: bytes = b"7") -> bytes:
    params = b'{"name":"t","arguments":' + arguments + b"}"
    return b'{"jsonrpc":"2.0","id":' + request_id + b',"method":"tools/call","params":' + params + b"}"


def refusal_of(line: bytes, limits: Limits = LIMITS) -> KernelError:
    message = message_of(line, limits)
    assert isinstance(message, SessionMessage)
    assert message.message.params["arguments"] == {}
    return message.metadata.request_context


def test_a_good_line_is_a_message_without_a_refusal():
    message = message_of(call(b'{"a":[1,2.5,"\\u00e9",null,true]}'), LIMITS)
    assert message.message.params["arguments"] == {"a": [1, 2.5, "é", None, True]}
    assert message.metadata.request_context is None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (b'{"a":NaN}', "argument.invalid_json", "NaN"),
        (b'{"a":-Infinity}', "argument.invalid_json", "Infinity"),
        (b'{"a":1,"a":2}', "argument.duplicate_key", "'a'"),
        (b'{"a":"\\ud800"}', "argument.invalid_json", "surrogate"),
        (b'{"a":' + b"9" * 5000 + b"}", "argument.invalid_json", "not JSON"),
        (b'{"a":' + b"[" * 70 + b"]" * 70 + b"}", "argument.too_deep", "64"),
        (b'{"a":' + b'{"b":' * 100_000 + b"1" + b"}" * 100_000 + b"}", "argument.too_deep", "64"),
        (b'{"a":"' + b"x" * (9 << 20) + b'"}', "argument.too_large", "8388608"),
        (b"[1]", "argument.wrong_type", "object"),
        (b'"[1]"', "argument.wrong_type", "object"),
        (b'{"a":"\xff"}', "argument.invalid_json", "UTF-8"),
    ],
)
def test_bad_arguments_are_refused_and_their_request_is_still_known(arguments, code, words):
    refusal = refusal_of(call(arguments))
    assert refusal.code == code
    assert words in refusal.message


def test_a_surrogate_pair_is_one_character_and_no_refusal():
    assert message_of(call(b'{"a":"\\ud83d\\ude00"}'), LIMITS).message.params["arguments"] == {"a": "\U0001f600"}


def test_depth_up_to_the_limit_is_fine():
    deep = b"[" * 63 + b"]" * 63
    assert message_of(call(b'{"a":' + deep + b"}"), LIMITS).metadata.request_context is None
    assert refusal_of(call(b'{"a":[' + deep + b"]}")).code == "argument.too_deep"


def test_brackets_in_strings_are_no_depth_when_a_deep_line_is_cut():
    line = b'{"jsonrpc":"2.0","method":"tools/call","params":{"arguments":{"s":"]]}\\"[[","d":%s},"name":"t"},"id":"x"}'
    deep = b"[" * 20_000 + b"]" * 20_000
    message = message_of(line % deep, LIMITS)
    assert (message.message.id, message.message.params["name"]) == ("x", "t")


def test_arguments_sent_as_a_string_are_parsed():
    assert message_of(call(b'"{\\"a\\":1}"'), LIMITS).message.params["arguments"] == {"a": 1}


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 70 + "1" + "}" * 70, '{"a":1e999}', '{"a":NaN}', '{"a":"\\ud800"}', '{"a":1,"a":2}'],
)
def test_arguments_sent_as_a_string_are_as_strict_as_others(text):
    assert refusal_of(call(json.dumps(text).encode())).code == "argument.wrong_type"


def test_a_number_past_the_floats_is_refused():
    assert refusal_of(call(b'{"a":1e999}')).code == "argument.invalid_json"


def test_a_key_that_is_twice_among_very_many_is_found_without_looking_at_all_pairs():
    """Quadratic, this line takes hours."""
    many = b",".join(b'"k%d":0' % n for n in range(400_000))
    assert refusal_of(call(b"{" + many + b',"k399999":1}')).code == "argument.duplicate_key"


@pytest.mark.parametrize(
    ("line", "code", "request_id"),
    [
        (b"{not json", -32700, None),
        (b"[]", -32600, None),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600, None),
        (b'"text"', -32600, None),
        (b'{"id":4}', -32600, 4),
        (b'{"id":100000000000000000000000000}', -32600, 10**26),
        (b'{"jsonrpc":"1.0","id":"k","method":"ping"}', -32600, "k"),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":5,"method":"x","params":' + b"[" * 2_000_000, -32600, 5),
        (b"\xff\xfe", -32700, None),
    ],
)
def test_what_is_no_message_is_answered_by_line(line, code, request_id):
    refused = message_of(line, LIMITS)
    assert isinstance(refused, Refused)
    answer = json.loads(refused.line)
    assert (answer["error"]["code"], answer["id"]) == (code, request_id)
    assert answer["error"]["message"].startswith("argument.")


# --- both directions, over real descriptors


@contextlib.asynccontextmanager
async def wired(limits=LIMITS, pair=os.pipe):
    """A wire, the descriptor that feeds it, the one that reads from it; all closed at the end."""
    theirs, source = (end.detach() for end in socket.socketpair()) if pair is socket.socketpair else reversed(pair())
    sink_read, sink = (end.detach() for end in socket.socketpair()) if pair is socket.socketpair else pair()
    wire = Wire(source, sink, limits)
    fds = {theirs, sink_read}
    try:
        yield wire, theirs, sink_read, fds
    finally:
        for fd in fds:
            os.close(fd)
        await asyncio.wait_for(wire.close(), 10)


def bounded(main) -> None:
    asyncio.run(asyncio.wait_for(main, 30))


async def first(wire) -> SessionMessage:
    return await anext(aiter(wire.incoming))


@pytest.mark.parametrize("pair", [os.pipe, socket.socketpair])
def test_messages_go_in_and_out(pair):
    async def main():
        async with wired(pair=pair) as (wire, feed, read, _):
            os.write(feed, call(b"{}") + b"\n\n" + call(b"{}", b"8")[:10])
            assert (await first(wire)).message.id == 7
            os.write(feed, call(b"{}", b"8")[10:] + b"\n")
            assert (await first(wire)).message.id == 8
            assert wire.open_requests == {7, 8}
            await wire.outgoing.send(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=7, result={"x": "é"})))
            assert json.loads(os.read(read, 4096)) == {"jsonrpc": "2.0", "id": 7, "result": {"x": "é"}}
            assert wire.open_requests == {8}

    bounded(main())


def test_end_of_input_waits_for_open_requests_and_not_for_ever(monkeypatch):
    monkeypatch.setattr(transport, "GRACE_S", 0.2)

    async def main():
        async with wired() as (wire, feed, _, fds):
            os.write(feed, call(b"{}") + b"\n" + call(b"{}", b"8"))  # the last line has no newline
            os.close(feed)
            fds.remove(feed)
            assert [(await first(wire)).message.id, (await first(wire)).message.id] == [7, 8]
            waiting = asyncio.ensure_future(first(wire))
            await wire.outgoing.send(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=7, result={})))
            await asyncio.wait((waiting,), timeout=0.05)
            assert not waiting.done()
            with pytest.raises(StopAsyncIteration):  # 8 is never answered
                await waiting

    bounded(main())


def test_end_of_input_comes_at_once_when_everything_is_answered():
    async def main():
        async with wired() as (wire, feed, _, fds):
            os.write(feed, call(b"{}") + b"\n")
            await first(wire)
            os.close(feed)
            fds.remove(feed)
            waiting = asyncio.ensure_future(first(wire))
            await wire.outgoing.send(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=7, result={})))
            began = asyncio.get_running_loop().time()
            with pytest.raises(StopAsyncIteration):
                await waiting
            assert asyncio.get_running_loop().time() - began < transport.GRACE_S

    bounded(main())


def test_a_reader_that_is_gone_ends_the_input():
    async def main():
        async with wired() as (wire, feed, read, fds):
            os.write(feed, call(b"{}") + b"\n")
            await first(wire)
            os.close(read)
            fds.remove(read)
            notice = SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="notifications/x"))
            await wire.outgoing.send(notice)
            with pytest.raises(anyio.BrokenResourceError):
                await wire.outgoing.send(notice)
            with pytest.raises(StopAsyncIteration):
                await first(wire)

    bounded(main())


def test_a_client_that_never_reads_is_not_read_from_either(monkeypatch):
    monkeypatch.setattr(transport, "OUTPUT_BYTES_MAX", 200_000)
    big = SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=1, result={"x": "y" * 100_000}))

    async def main():
        async with wired() as (wire, feed, read, _):
            sending = [asyncio.ensure_future(wire.outgoing.send(big)) for _ in range(10)]
            await asyncio.wait(sending, timeout=0.2)
            assert not all(task.done() for task in sending)
            os.write(feed, call(b"{}") + b"\n")
            reading = asyncio.ensure_future(first(wire))
            await asyncio.wait((reading,), timeout=0.2)
            assert not reading.done()
            got = bytearray()
            while got.count(b"\n") < 10:
                got += await asyncio.to_thread(os.read, read, 1 << 20)
            await asyncio.gather(*sending)
            assert (await reading).message.id == 7
            assert all(json.loads(line)["id"] == 1 for line in got.splitlines())

    bounded(main())


def test_a_line_without_end_is_dropped_while_it_arrives_and_its_request_is_told():
    limits = Limits(argument_bytes_max=10_000)

    async def main():
        async with wired(limits) as (wire, feed, read, _):
            line = call(b'{"a":"' + b"x" * 1_000_000 + b'"}', b'"giant"') + b"\n"
            writing = asyncio.to_thread(_write_all, feed, line)
            await asyncio.wait_for(writing, 10)
            answer = orjson.loads(await asyncio.to_thread(os.read, read, 65536))
            assert answer["id"] == "giant"
            assert answer["error"]["data"]["code"] == "argument.too_large"
            assert len(wire.incoming._buffer) < 100_000
            os.write(feed, call(b"{}") + b"\n")
            assert (await first(wire)).message.id == 7

    bounded(main())


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def test_a_stream_of_changes_does_not_hold_the_end_of_input_up():
    async def main():
        async with wired() as (wire, feed, _, fds):
            os.write(feed, b'{"jsonrpc":"2.0","id":9,"method":"subscriptions/listen","params":{"notifications":{}}}\n')
            assert (await first(wire)).message.id == 9
            os.close(feed)
            fds.remove(feed)
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(first(wire), transport.GRACE_S / 2)

    bounded(main())


def test_too_many_open_requests_are_refused_as_overload(monkeypatch):
    monkeypatch.setattr(transport, "REQUESTS_OPEN_MAX", 2)

    async def main():
        async with wired() as (wire, feed, read, _):
            os.write(feed, b"".join(call(b"{}", str(n).encode()) + b"\n" for n in range(3)))
            assert [(await first(wire)).message.id, (await first(wire)).message.id] == [0, 1]
            refused = orjson.loads(await asyncio.to_thread(os.read, read, 65536))
            assert (refused["id"], refused["error"]["data"]["code"]) == (2, "kernel.overloaded")
            os.write(feed, b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":0}}\n')
            os.write(feed, call(b"{}", b"3") + b"\n")
            assert [(await first(wire)).message.method, (await first(wire)).message.id] == [
                "notifications/cancelled",
                3,
            ]

    bounded(main())


def test_input_from_a_file_is_read_to_its_end(tmp_path):
    path = tmp_path / "requests"
    path.write_bytes(call(b"{}") + b"\n" + call(b"{}", b"8") + b"\n")

    async def main():
        read, sink = os.pipe()
        wire = Wire(os.open(path, os.O_RDONLY), sink, LIMITS)
        assert [(await first(wire)).message.id, (await first(wire)).message.id] == [7, 8]
        for request_id in (7, 8):
            await wire.outgoing.send(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=request_id, result={})))
        with pytest.raises(StopAsyncIteration):
            await first(wire)
        await wire.close()
        assert os.read(read, 65536).count(b"\n") == 2
        os.close(read)

    bounded(main())
