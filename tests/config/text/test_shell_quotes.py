"""Placeholders of a command as bash sees them: bare, or inside quotes; bash itself is the reference."""

from __future__ import annotations

import subprocess

import pytest

from hpotune.config.text.shell_quotes import quote_mistakes, standing_alone
from hpotune.worker.objective.command import fill_in

BARE = [
    "run {k}",
    "run --lr={k}",
    "run a{k}b",
    "run {k}{k}",
    "FOO={k} run",
    "run > {k}",
    "(run {k})",
    "run 'a' {k} \"b\"",
    "run \\' {k}",
    'run "it\'s" {k}',
    "run '\"' {k}",
    "a=$(date) run {k}",
    "run `date` {k}",
    "run $((1+2)) {k}",
    "run ${{HOME}} {k}",
    "run a#b {k}",
    "# a remark\nrun {k}",
    "# it's\nrun {k}",
    "run <<< {k}",
    "run $'a\\'b' {k}",
    "cat <<EOF\n'text\nEOF\nrun {k}",
    "cat <<-'E F'\n\"\n\tE F\nrun {k}",
    "cat <<A <<B\nx\nA\ny\nB\nrun {k}",
    "[ {k} = 1 ]",
    "[[ a == {k} ]]",
    "for i in {k}; do echo $i; done",
    "diff <(sort a) {k}",
    'echo "$(date)" {k}',
    "echo \\\\{k}",
    "echo ${{A:-'x'}} {k}",
    "((a=1)); run {k}",
    "run {{a}} {k}",
    "case {k} in a) run;; esac",
    "n=$((1<<3))\nrun {k}",
    "n=$(( (1<<3) + (2 << 1) ))\nrun {k}",
    "((n=1<<3))\nrun {k}",
    "((n<<=3))\nrun {k}",
    "for ((i=0; i<1<<2; i++)); do\nrun {k}\ndone",
    "n=$[1<<3]\nrun {k}",
    'echo "$((1<<3))"\nrun {k}',
    "a=xy\necho ${{a:0:1<<1}}\nrun {k}",
    "let 'n=1<<3'\nrun {k}",
    "echo $((1<<3)); cat <<E\n'\nE\nrun {k}",
    "echo $((`cat <<E\n1\nE\n` << 1)) {k}",
]
QUOTED = {
    "touch pwn.'{k}'": "single quotes",
    'echo "{k}"': "double quotes",
    "echo $'{k}'": "$'...' quotes",
    "echo `run {k}`": "backquotes",
    "echo $(run {k})": "$(...)",
    'echo "$(run {k})"': "double quotes",
    "cat <<EOF\n{k}\nEOF": "a here-document",
    "cat <<'EOF'\n{k}\nEOF": "a here-document",
    "cat <<-E\n\tx\n{k}": "a here-document",
    "run # {k}": "a remark",
    "echo $(( {k} + 1 ))": "arithmetic",
    "(( x = {k} ))": "arithmetic",
    "echo ${{A:-{k}}}": "${...}",
    "echo \\{k}": "behind a backslash",
    "echo ${k}": "behind a $",
    "a[{k}]=1": "an index",
    "cat <<{k}": "the end of a here",
    'echo "a \\" {k}"': "double quotes",
    "echo 'a'\"'\"'{k}'": "single quotes",
    'echo "`run {k}`"': "double quotes",
    "diff <(sort {k}) b": "$(...)",
    "echo $[1 << {k}]": "arithmetic",
    "let n=1<<E\n{k}": "a here-document",
    "n=$(cat <<E\n1\nE\n); cat <<E\n{k}\nE": "a here-document",
    "bash -c 'run {k}'": "single quotes",
    'echo \\\'"{k}"': "double quotes",
}
VALUES = [
    "$(touch hacked)",
    "`touch hacked`",
    "it's",
    "a b",
    "\ntouch hacked\n",
    "'; touch hacked #",
    '"; touch hacked #',
    "",
]


@pytest.mark.parametrize("command", BARE)
def test_bare_placeholder_is_allowed(command):
    assert [*quote_mistakes(command)] == []


@pytest.mark.parametrize(("command", "says"), QUOTED.items())
def test_quoted_placeholder_is_refused(command, says):
    (name, where), *_ = quote_mistakes(command)
    assert name == "k"
    assert says in where


@pytest.mark.parametrize("command", BARE)
def test_bash_runs_no_bare_value(command, tmp_path):
    for value in VALUES:
        line = "run() { :; }\n" + fill_in(command.replace("> {k}", "> out{k}"), {"k": value})
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "unexpected EOF" not in done.stderr
        assert not (tmp_path / "hacked").exists(), line


@pytest.mark.parametrize(
    ("command", "says"), [("echo {k} 'a", "opens single"), ('echo {k} "a', "opens double quotes that")]
)
def test_open_quotes_are_refused(command, says):
    assert any(not name and says in where for name, where in quote_mistakes(command))


def test_words_of_their_own():
    assert standing_alone("run {a} --x {b} --y={c} {d}{e} '{f}'\n{g}") == {"a", "b", "g"}
