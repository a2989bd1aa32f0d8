"""Where Sacred keeps the record of a run: beside its results by default, in a MongoDB that may be away, or both.

A MongoDB that is not there, or goes away during a run, costs the run nothing: one warning, and the whole record goes to
files instead.
"""

import builtins
import contextlib
import copy
import hashlib
import logging
import mimetypes
import re
import shutil
import threading
import warnings
from datetime import timedelta
from pathlib import Path

from rrt.errors import InputError, disk_full, first_line

with warnings.catch_warnings():  # as in rrt.command_line.sacred_runs
    warnings.simplefilter("ignore")
    from sacred.observers import FileStorageObserver, MongoObserver, RunObserver
    from sacred.observers.mongo import force_bson_encodeable, get_pattern, parse_mongo_db_arg

# How long a server may take to answer before the record goes to files.
PATIENCE_MS = 5000
_INPUT_ERROR = f"{InputError.__module__}.{InputError.__name__}"
_AT_ONCE = timedelta(seconds=5)
# Events that add to the record; a heartbeat repeats its whole state.
_ADDING = ("resource_event", "artifact_event", "log_metrics")


def record_folder(ex_info: dict, config: dict) -> Path:
    """Where a run is recorded that was given no folder: its temp_dir, else logs/<name of the command>."""
    return Path(str(config.get("temp_dir") or "") or Path("logs") / ex_info["name"])


class _Record(RunObserver):
    """Hands every event of a run to the observer behind it."""

    def __init__(self):
        self._observer = RunObserver()
        # The heartbeat calls from a thread of its own.
        self._lock = threading.RLock()

    @property
    def dir(self):
        """Folder of the record, None when it is in no files."""
        return getattr(self._observer, "dir", None)

    def _tell(self, method, event):
        getattr(self._observer, method)(**event)


def _handing_on(method):
    return lambda self, **event: self._tell(method, event)


for _method in ("heartbeat_event", "completed_event", "interrupted_event", "failed_event", *_ADDING):
    setattr(_Record, _method, _handing_on(_method))


class DefaultRecord(_Record):
    """Records a run in its temp_dir as ``-F`` does, so that results and settings lie together; a command without a
    temp_dir is not recorded. Nor is a run that wrong input ends at once: a slip of the pen leaves no files. Files that
    cannot be written, on a full disk, cost one warning and what is not recorded yet."""

    def __init__(self):
        super().__init__()
        self._started, self._heartbeat = None, []

    def started_event(self, **event):
        """Keeps the start of a run that has a temp_dir, until there is something to record."""
        self._started, self._heartbeat = event if event["config"].get("temp_dir") else None, []

    def _tell(self, method, event):
        with self._lock:
            if self._started and not self._waits(method, event):
                started, self._started = self._started, None
                self._observer = FileStorageObserver(record_folder(started["ex_info"], started["config"]))
                self._write("started_event", started)
                for earlier in self._heartbeat:
                    self._write("heartbeat_event", earlier)
            self._write(method, event)

    def _write(self, method, event):
        try:
            super()._tell(method, event)
        except OSError as error:
            failed, self._observer = self._observer, RunObserver()
            assert isinstance(failed, FileStorageObserver)
            where, loss = failed.dir or failed.basedir, "the record of the run ends here"
            if method == "started_event":
                loss = "the run is not recorded"
                if failed.dir:
                    shutil.rmtree(failed.dir, ignore_errors=True)
                _remove_parts(Path(failed.basedir) / "_sources")
            reason = disk_full(error) or first_line(error)
            logging.getLogger("rrt.sacred").warning(f"{where}: {reason}; {loss}")

    def _waits(self, method, event):
        """Whether the run has done nothing yet that is worth a record; keeps the last heartbeat until it has."""
        assert self._started is not None
        if method == "heartbeat_event" and event["beat_time"] - self._started["start_time"] < _AT_ONCE:
            self._heartbeat = [event]
            return True
        if method == "failed_event":
            kind = event["fail_trace"][-1].partition(":")[0]
            return kind == _INPUT_ERROR or issubclass(getattr(builtins, kind, Exception), OSError)
        return method == "log_metrics" and not event["metrics_by_name"]


def _remove_parts(sources: Path):
    """Remove copies of sources that are not what the checksum in their names says: Sacred would take them for whole."""
    for path in sources.glob("*_*"):
        with contextlib.suppress(OSError):
            if hashlib.md5(path.read_bytes()).hexdigest() != path.stem.rpartition("_")[2]:
                path.unlink()
    with contextlib.suppress(OSError):  # that it holds copies of other runs
        sources.rmdir()


class MongoRecord(_Record):
    """Records a run in the MongoDB that ``connect()`` opens, or, from the first failure on, in files.

    has_files: the run is recorded in files anyway, which then is all there is. The files get the whole record, with
    what the MongoDB had got before. numbered: the run's number was given by the user.
    """

    # Behind files (20): Sacred hands the first observer's number to the others, and a folder of that number may exist.
    priority = 10

    def __init__(self, connect, has_files=False, numbered=False):
        super().__init__()
        self._connect, self._has_files, self._numbered = connect, has_files, numbered
        self._started: dict | None = None
        self._events, self._heartbeat = [], []

    def started_event(self, **event):
        """Opens the MongoDB; the run's number there, or in the files that take its place."""
        self._started = event if self._numbered else event | {"_id": None}
        try:
            self._observer = self._connect()
            return self._observer.started_event(**_copied(self._started))
        except Exception as error:  # pymongo, the operating system and Sacred raise many kinds
            return self._go_on_in_files(error)

    def queued_event(self, **event):
        """As Sacred has it: the run is only written down."""
        self._observer = self._connect()
        return self._observer.queued_event(**event)

    def _tell(self, method, event):
        with self._lock:
            try:
                super()._tell(method, event)
            except Exception as error:
                if not isinstance(self._observer, MongoObserver):
                    raise
                self._go_on_in_files(error)
                super()._tell(method, event)
            if method in _ADDING:
                self._events.append((method, event))
            elif method == "heartbeat_event":
                self._heartbeat = [(method, event)]

    def _go_on_in_files(self, error):
        failed, self._observer = self._observer, RunObserver()
        client = getattr(failed, "_client", None)
        if client is not None:
            client.close()
        number, where, started = None, "in the folder of -F alone", self._started
        if not self._has_files and started is not None:
            files = FileStorageObserver(record_folder(started["ex_info"], started["config"]))
            number, where = files.started_event(**_copied(started)), f"in {files.dir}"
            for method, event in self._events + self._heartbeat:
                getattr(files, method)(**event)
            self._observer = files
        reason = re.split(r" \(configured timeouts|, Timeout:", str(error) or type(error).__name__)[0].splitlines()[0]
        logging.getLogger("rrt.sacred").warning(f"MongoDB: {reason[:200]}; the run is recorded {where}")
        return number


def _copied(event):
    # Observers change what they are told of the experiment.
    return event | {"ex_info": copy.deepcopy(event["ex_info"])}


class StrictMongoObserver(MongoObserver):
    """Says when it fails: Sacred's own waits minutes for a lost server, or loses what it should have kept."""

    def save(self):
        """Writes the run's entry; what BSON does not know is made text. Raises what pymongo raises."""
        from bson.errors import InvalidDocument

        for last in (False, True):
            assert isinstance(self.run_entry, dict)
            try:
                self.runs.update_one({"_id": self.run_entry["_id"]}, {"$set": self.run_entry}, upsert=True)
                return
            except InvalidDocument:
                if last:
                    raise
                self.run_entry = force_bson_encodeable(self.run_entry)

    def final_save(self, attempts):
        """``save``, without Sacred's attempts."""
        self.save()

    @staticmethod
    def _try_to_detect_content_type(filename):
        return mimetypes.guess_type(filename)[0]  # Sacred's prints what it found into the run's output


def mongo_record(where: str, has_files: bool, numbered: bool) -> MongoRecord:
    """The record for ``-m where`` = [HOST:PORT:]DB[.COLLECTION[:ID]][!PRIORITY]."""
    timeouts = dict.fromkeys(("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS"), PATIENCE_MS)
    return MongoRecord(lambda: StrictMongoObserver(**parse_mongo_db_arg(where), **timeouts), has_files, numbered)


def is_mongo_address(text: str) -> bool:
    """Whether a text is [HOST:PORT:]DB[.COLLECTION[:ID]][!PRIORITY]."""
    return re.match(get_pattern(), text) is not None
