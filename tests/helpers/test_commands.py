"""The helper that kills a command says so when what it waits for does not come."""

import pytest
from commands import kill_tool_when


def test_a_command_is_killed_as_soon_as_it_happened(tmp_path):
    (tmp_path / "run.py").write_text("import time\nopen('begun', 'w')\ntime.sleep(60)\n")
    kill_tool_when((tmp_path / "begun").exists, tmp_path / "run.py", cwd=tmp_path)


@pytest.mark.parametrize(
    "script, reason", [("import time; time.sleep(60)", "did not come in 0.5 s"), ("pass", "ended before")]
)
def test_what_never_happens_fails_the_test(tmp_path, script, reason):
    (tmp_path / "run.py").write_text(script)
    with pytest.raises(AssertionError, match=reason):
        kill_tool_when(lambda: False, tmp_path / "run.py", cwd=tmp_path, patience=0.5 if "sleep" in script else 60)
