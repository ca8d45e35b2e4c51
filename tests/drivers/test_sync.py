"""The blocking SDK: the same agent, without an event loop of one's own."""

import inspect
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import aimessage
from aimessage import errors, sync
from aimessage.client import Agent, Message, Sent
from aimessage.testing import Network, agents, pair

NOT_BLOCKING = {"trouble", "close", "is_connected", "shown", "show_again", "give_back", "note_failure"}


def test_what_is_sent_is_heard_answered_and_acknowledged() -> None:
    with pair() as (alice, bobby):
        sent = alice.send("bobby", "please index /data", thread="t-7", wait_for="accepted")
        [message] = bobby.wait(timeout=30)
        assert (message.text, message.from_, message.thread) == ("please index /data", "alice", "t-7")
        message.reply("done")
        message.ack()
        [answer] = alice.wait(timeout=30)
        assert (answer.text, answer.reply_to) == ("done", sent.id)
        assert sent.delivered(timeout=30).state in ("delivered", "read", "handled")


def test_an_ask_is_answered_from_another_thread() -> None:
    with pair() as (alice, bobby):

        def answer() -> None:
            for message in bobby.listen(count=1):
                message.reply(f"re: {message.text}")

        answering = threading.Thread(target=answer)
        answering.start()
        assert alice.ask("bobby", "status?", timeout=60).text == "re: status?"
        answering.join()


def test_many_threads_share_one_agent() -> None:
    with pair() as (alice, bobby), ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda number: alice.send("bobby", f"task {number}").id, range(40)))
        heard: list[str | None] = []
        while len(heard) < 40:
            heard += [message.text for message in bobby.wait(timeout=30)]
        assert sorted(map(str, heard)) == sorted(f"task {number}" for number in range(40))
        assert len(set(sent)) == 40


def test_errors_are_the_asynchronous_ones() -> None:
    with pair() as (alice, _):
        with pytest.raises(errors.RecipientUnknown):
            alice.send("nobody-here", "x")
        with pytest.raises(errors.TextNotAllowed):
            alice.send("bobby", "\U0001f600")
        with pytest.raises(errors.TimedOut):
            alice.ask("bobby", "are you there?", timeout=0.2)


async def test_inside_an_event_loop_it_says_so_instead_of_hanging() -> None:
    async with Network() as network:
        await network.join("alice")
        with pytest.raises((RuntimeError, errors.AimessageError)), sync.connect(network.settings("alice")) as me:
            me.users()


def test_a_consumer_that_leaves_early_gives_back_what_it_was_not_shown() -> None:
    with pair() as (alice, bobby):
        for number in range(3):
            alice.send("bobby", str(number))
        for message in bobby.listen():
            assert message.text == "0"
            break
        rest = [message.text for message in bobby.wait(timeout=30)]
        assert rest[-2:] == ["1", "2"]


def test_every_public_method_has_its_blocking_twin() -> None:
    public = {name for name in vars(Agent) if not name.startswith("_")}
    assert public - NOT_BLOCKING - {name for name in dir(sync.Agent) if not name.startswith("_")} == set()


FOR_DRIVERS = {"keep", "cost"}  # who prints what it has been given says so by itself
TWINS = [(Agent, sync.Agent), (Message, sync.Message), (Sent, sync.Sent)]


@pytest.mark.parametrize(("twin", "blocking"), TWINS, ids=lambda kind: kind.__module__)
def test_a_blocking_method_takes_what_its_twin_takes(twin: type, blocking: type) -> None:
    for name, method in inspect.getmembers(blocking, inspect.isfunction):
        if not name.startswith("_") and hasattr(twin, name):
            ours, theirs = inspect.signature(method).parameters, inspect.signature(getattr(twin, name)).parameters
            assert {each.name: (each.kind, each.default) for each in ours.values()} == {
                each.name: (each.kind, each.default) for each in theirs.values() if each.name not in FOR_DRIVERS
            }, name


def test_an_answer_in_asynchronous_hands_can_say_that_none_is_wanted() -> None:
    with pair() as (alice, bobby):
        alice.send("bobby", "ping")
        [ping] = bobby.wait(timeout=30)
        ping.reply("pong", expects_reply=False)
        [pong] = alice.wait(timeout=30)
        assert not pong.expects_reply


def test_control_c_ends_a_blocking_wait_and_the_program_goes_on() -> None:
    script = (
        "import sys, aimessage.sync\n"
        "with aimessage.sync.connect(agent='bobby') as me:\n"
        "    try:\n"
        "        print('waiting', flush=True)\n"
        "        me.wait(timeout=600)\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', flush=True)\n"
        "print('closed', flush=True)\n"
    )
    with Network() as network:
        alice, bobby = network.join_blocking("alice"), network.join_blocking("bobby")
        command = [sys.executable, "-c", script]
        environ = os.environ | dict(network.environ)
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.read() == "interrupted\nclosed\n"
        assert process.returncode == 0
        alice.send("bobby", "still there?")
        assert [message.text for message in bobby.wait(timeout=30)] == ["still there?"]


def test_the_root_exports_lazily_and_nothing_else() -> None:
    assert aimessage.connect is not None
    assert aimessage.sync is sync
    with pytest.raises(AttributeError):
        _ = aimessage.no_such_name


async def test_the_testing_network_is_gone_when_its_context_ends() -> None:
    async with agents("planner", "worker-1", "worker-2") as (planner, *workers):
        for worker in workers:
            await planner.send(worker.profile.username, "go")
            [message] = await worker.wait(timeout=30)
            assert message.text == "go"
        home = planner.profile.directory
        assert home.exists()
    assert not home.exists()
