"""Twelve processes at once on one ROOT, some of them killed: what is true of one is true of all."""
import json
import os
import signal
import sys
import time

import codex_mcp_swarm as cms
from codex_mcp_swarm import ToolError

from client import eventually
from .helpers import put_in
from .odd import rounds

PROCESSES = 12


class Crowd:
    """Processes that each do the same at the same moment. What each says is told by `ends`."""

    def __init__(self, act):
        gate, self.gate = os.pipe()
        self.said, said = os.pipe()
        self.pids = []
        for number in range(PROCESSES):
            pid = os.fork()
            if pid == 0:
                self._run(act, number, gate, said)
            self.pids.append(pid)
        os.close(gate)
        os.close(said)

    def _run(self, act, number, gate, said):
        """Never returns into the test."""
        try:
            os.close(self.gate)
            os.read(gate, 1)                    # until everybody is there
            for word in act(number):
                os.write(said, json.dumps([number, word]).encode() + b"\n")
        except BaseException as error:          # whatever it is, the test is told
            os.write(said, json.dumps([number, {"failed": repr(error)}]).encode() + b"\n")
        finally:
            os._exit(0)

    def go(self):
        os.close(self.gate)

    def kill(self, pids, after_s):
        time.sleep(after_s)                     # at any moment of what they do
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def ends(self):
        """What each said, in the order in which it was said, once all have ended."""
        for pid in self.pids:
            os.waitpid(pid, 0)
        with open(self.said, "rb") as f:
            found = [json.loads(line) for line in f]
        assert not [word for _, word in found if isinstance(word, dict)], found
        return found


def test_twelve_callers_of_one_request_id_get_the_same_tasks_whoever_of_them_is_killed(swarm):
    for chance in rounds(1):
        app = swarm()
        before, named = set(app.store.ids()), "night-%d" % chance.seed_of

        def call(app=app, named=named):
            arguments = {"tasks": [{"prompt": "SAY a"}, {"prompt": "SAY b"}], "wait": False,
                         "client_request_id": named}
            try:
                return cms.TOOLS["codex_batch"].called(app, arguments, cms.Call()).data["task_ids"]
            except ToolError as error:
                return str(error)
        crowd = Crowd(lambda number: [call()])
        crowd.go()
        crowd.kill(chance.sample(crowd.pids, chance.choice([0, 3, 11])), chance.random() / 30)
        answers = [word for _, word in crowd.ends()] + [call()]
        there = set(app.store.ids()) - before
        for answer in answers:
            assert isinstance(answer, list) and set(answer) == there \
                or "only %d are there" % len(there) in answer, (chance.seed_of, answers, there)
        app.wait(sorted(there), 60, cms.Call())


def test_what_twelve_processes_note_as_ended_comes_once_and_in_order_to_whoever_reads_on(tasks):
    app = cms.Swarm(cms.Config(tasks.root, tasks.root + "/trees", sys.executable), cms.Host(), os.environ)
    for chance in rounds(1):
        names = [["%02x%02x%08x" % (chance.seed_of % 256, process, i) for i in range(20)]
                 for process in range(PROCESSES)]
        for name in sum(names, []):
            os.mkdir(os.path.join(tasks.tasks, name))

        def note(number, names=names):
            for name in names[number]:
                task = cms.TaskDir(os.path.join(tasks.tasks, name))
                cms.Ended(tasks.root).add([task], (), time.time() - number)     # clocks differ
                yield name
        crowd = Crowd(note)
        read, cursors = [], [app.lists.now().cursor]

        def read_on(read=read, cursors=cursors):
            page = app.lists.since(cursors[-1])
            read += page.task_ids
            cursors.append(page.cursor)
            return len(read) >= 20 * (PROCESSES - 2)
        crowd.go()
        crowd.kill(crowd.pids[:2], 0.01)
        eventually(read_on, what="what ten of them note")
        said = {word for _, word in crowd.ends()}
        read_on()
        rows = [row[1] for row in app.store.ended.newest_first(app.store.ended.text())][::-1]
        assert read == rows[-len(read):] and len(set(read)) == len(read), chance.seed_of
        assert said <= set(read) <= set(sum(names, [])), chance.seed_of


LIMIT = 3


def work_through(store, chance, specs):
    """Put tasks into the queue, and let begin whatever may, as servers and ending supervisors do. Says when a
    task begins, while its slot is held, and when it ends, while it still is."""
    host = cms.Host()
    for spec in specs:
        if spec is not None:
            put_in(store, cms.TaskDir.create(store.tasks, spec, "x"), spec, time.time())
        begun = []
        for task, fds in store.queue.due(host):
            begun.append((task, [os.dup(fd) for fd in fds]))
            task.write_status(cms.Status(cms.State.STARTING))
            store.queue.drop(task)
            yield "+" + task.task_id
        time.sleep(chance.random() / 100)           # they run
        for task, fds in begun:
            task.end(cms.Status(cms.State.ENDED, cms.Outcome.SUCCEEDED),
                     cms.Report(cms.Outcome.SUCCEEDED, 1.0, 2.0))
            yield "-" + task.task_id
            cms.close_all(*fds)


def test_a_queue_that_twelve_processes_move_lets_each_task_begin_once_and_never_more_than_the_limit(tasks):
    for chance in rounds(1):
        specs = [[cms.Spec("%02x%02x%08x" % (chance.seed_of % 256, number, i), 1.0, "codex", "/",
                           max_parallel=LIMIT) for i in range(5)] for number in range(PROCESSES)]
        crowd = Crowd(lambda number: work_through(tasks, chance, specs[number]))
        crowd.go()
        crowd.kill(crowd.pids[:2], chance.random() / 20)
        said = crowd.ends()
        said += [(None, word) for word in work_through(tasks, chance, [None] * 100)]
        running, begun = {}, []
        for number, word in said:
            if word[0] == "+":
                begun.append(word[1:])
                running[word[1:]] = number
                alive = [who for who in running.values() if who not in (0, 1)]
                assert len(alive) <= LIMIT, (chance.seed_of, running)
            else:
                del running[word[1:]]
        assert len(set(begun)) == len(begun) and tasks.queue.names() == [], chance.seed_of
        there = {name for name in os.listdir(tasks.tasks) if not name.startswith(".")}
        assert {spec.task_id for spec in sum(specs[2:], [])} <= set(begun) <= there, chance.seed_of
