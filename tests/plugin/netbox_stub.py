"""Stubs of NetBox and Django, in memory, with which a job of the plugin runs outside of them.

The plugin's own modules run the job. This module has the few functions of Django and NetBox that they import, and
tables for their models. A table supports the part of Django's query API that the job uses, and fails on any other.

Call `install` before the first import of `netbox_proxbox`. A job uses the `NetBox` of its context, so that several jobs
can run at once.
"""

import collections
import contextlib
import contextvars
import dataclasses
import hashlib
import hmac
import importlib
import itertools
import logging
import operator
import pathlib
import sys
import time
import types

import requests

# The NetBox of the current job.
CURRENT = contextvars.ContextVar("NetBox")


@dataclasses.dataclass
class Exchange:
    """One request of the plugin, with the status of its response."""

    method: str
    target: str
    headers: dict
    body: bytes | None
    status: int


class NetBox:
    """The tables of one NetBox, and the exchanges of its plugin."""

    def __init__(self):
        self.cache = {}
        # Deleted rows, as (model name, row).
        self.deleted = []
        self.exchanges = []
        # The path of each stream and its frames, as (time, event, data).
        self.streams = []
        # The delays of the plugin before retries, in seconds, which are skipped.
        self.slept = []
        self._tables = collections.defaultdict(list)
        self._keys = collections.defaultdict(lambda: itertools.count(1))

    def rows(self, model):
        return self._tables[model.__name__]

    def add(self, model, **values):
        row = model()
        row.pk = next(self._keys[model.__name__])
        for name, value in values.items():
            setattr(row, name, value)
        self.rows(model).append(row)
        return row


class Query:
    """Rows of a table, with the API of a Django QuerySet."""

    def __init__(self, model, rows):
        self.model = model
        self._rows = list(rows)

    def __iter__(self):
        return iter(self._rows)

    def __len__(self):
        return len(self._rows)

    def filter(self, **conditions):
        return Query(self.model, [row for row in self if _is_met(row, conditions)])

    def exclude(self, **conditions):
        return Query(self.model, [row for row in self if not _is_met(row, conditions)])

    def order_by(self, *names):
        rows = self._rows
        for name in reversed(names):
            rows = sorted(rows, key=operator.attrgetter(name.lstrip("-")), reverse=name.startswith("-"))
        return Query(self.model, rows)

    def select_related(self, *_names):
        return self

    def select_for_update(self):
        return self

    def values_list(self, *names, flat=False):
        values = [tuple(getattr(row, name) for name in names) for row in self]
        return Query(self.model, [value[0] for value in values] if flat else values)

    def values(self, *names):
        return [{name: getattr(row, name) for name in names} for row in self]

    def first(self):
        return self._rows[0] if self._rows else None

    def count(self):
        return len(self._rows)

    def exists(self):
        return bool(self._rows)

    def get(self, **conditions):
        found = list(self.filter(**conditions))
        if len(found) != 1:
            raise self.model.DoesNotExist(conditions)
        return found[0]

    def update(self, **values):
        for row in self._rows:
            for name, value in values.items():
                setattr(row, name, value)
        return len(self._rows)

    def delete(self):
        netbox = CURRENT.get()
        kept = [row for row in netbox.rows(self.model) if row not in self._rows]
        netbox.rows(self.model)[:] = kept
        netbox.deleted += [(self.model.__name__, row) for row in self._rows]
        return len(self._rows), {}


class Manager:
    """`Model.objects`."""

    def __get__(self, _row, model):
        return Table(model)


class Table(Query):
    def __init__(self, model):
        super().__init__(model, CURRENT.get().rows(model))

    def all(self):
        return self

    def create(self, **values):
        return CURRENT.get().add(self.model, **values)

    def get_or_create(self, defaults=None, **conditions):
        row = self.filter(**conditions).first()
        return (row, False) if row else (self.create(**conditions, **(defaults or {})), True)

    def update_or_create(self, defaults=None, **conditions):
        row, is_new = self.get_or_create(defaults, **conditions)
        self.filter(pk=row.pk).update(**(defaults or {}))
        return row, is_new


class Model:
    """A row. Fields without a value are None."""

    objects = Manager()

    def __init_subclass__(cls):
        cls.DoesNotExist = type("DoesNotExist", (Exception,), {})

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        # `x_id` is the primary key of the row `x`.
        related = self.__dict__.get(name.removesuffix("_id")) if name.endswith("_id") else None
        return getattr(related, "pk", None)

    def __str__(self):
        return str(self.name)

    def save(self, **_options):
        """Does nothing: the row is in its table."""

    def refresh_from_db(self, **_options):
        """Does nothing, as `save`."""


class Models(types.ModuleType):
    """`netbox_proxbox.models`: creates a model for each name on access."""

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        model = type(name, (Model,), {})
        setattr(self, name, model)
        return model


def _is_met(row, conditions):
    for condition, wanted in conditions.items():
        name, _, lookup = condition.partition("__")
        value = getattr(row, name)
        if lookup == "":
            met = value == wanted
        elif lookup == "in":
            met = value in wanted
        elif lookup == "isnull":
            met = (value is None) == wanted
        else:
            raise NotImplementedError(condition)
        if not met:
            return False
    return True


class ProxmoxEndpoint(Model):
    """The plugin's Proxmox endpoint with default settings."""

    # Secrets are stored in the fields of the endpoint.
    credential_storage_backend = "legacy_encrypted"

    @property
    def proxmox_nodes(self):
        return plugin("models").ProxmoxNode.objects.filter(endpoint=self)

    def effective_overwrites(self):
        return plugin("constants").OVERWRITE_DEFAULTS

    def effective_connection_tuning(self):
        return {"timeout": 5, "max_retries": 0, "retry_backoff": 0.5}

    def effective_sync_mode(self, resource_type):
        return "disabled" if resource_type.startswith("sdn") else "always"


# The settings of the plugin that it reads without a default.
SETTINGS = types.SimpleNamespace(
    use_guest_agent_interface_name=True,
    proxbox_fetch_max_concurrency=8,
    ignore_ipv6_link_local_addresses=True,
    primary_ip_preference="ipv4",
    parse_description_metadata=False,
)


class Cache:
    """Django's cache."""

    def get(self, key, default=None):
        return CURRENT.get().cache.get(key, default)

    def set(self, key, value, timeout=None):
        """Ignores `timeout`: every job here is shorter."""
        CURRENT.get().cache[key] = value

    def delete_many(self, keys):
        for key in keys:
            CURRENT.get().cache.pop(key, None)


class JobRow(Model):
    """NetBox's record of a job."""

    def __init__(self):
        self.data = None
        self.status = "running"
        self.error = ""
        # Entries (level, text).
        self.log = []

    def lines(self, *levels):
        """The texts of its log, of these levels or of all."""
        return [text for level, text in self.log if not levels or level in levels]


class JobRunner:
    """NetBox's base class of jobs: runs one and records its outcome."""

    def __init__(self, job):
        self.job = job
        self.logger = logging.Logger(type(self).__name__)
        self.logger.addHandler(_Log(job))

    @classmethod
    def handle(cls, job, **options):
        try:
            cls(job).run(**options)
        except Exception as error:
            job.status, job.error = "errored", str(error)
        else:
            job.status = "completed"


class _Log(logging.Handler):
    def __init__(self, job):
        super().__init__()
        self._job = job

    def emit(self, record):
        self._job.log.append((record.levelname, record.getMessage()))


def _module(name, **content):
    module = types.ModuleType(name)
    module.__path__ = []
    for key, value in content.items():
        setattr(module, key, value)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules.get(parent) or _module(parent), child, module)
    return module


def _salted_hmac(salt, value, *, algorithm):
    key = hashlib.new(algorithm, salt.encode()).digest()
    return hmac.new(key, msg=value.encode(), digestmod=algorithm)


def _errors(names):
    return {name: type(name, (Exception,), {}) for name in names}


def _decorator(*_arguments, **_options):
    return lambda decorated: decorated


def install(folder):
    """Makes the modules of `netbox_proxbox` in `folder` importable."""
    database_errors = ("DatabaseError", "OperationalError", "ProgrammingError")
    refusals = ("AppRegistryNotReady", "PermissionDenied", "ValidationError")
    _module("django.conf", settings=types.SimpleNamespace(PLUGINS=[], PLUGINS_CONFIG={}))
    _module("django.core.cache", cache=Cache())
    _module("django.core.exceptions", **_errors(refusals))
    transaction = types.SimpleNamespace(atomic=lambda **_options: contextlib.nullcontext())
    _module("django.db", transaction=transaction, **_errors(database_errors))
    _module("django.utils", timezone=types.SimpleNamespace(now=time.time))
    _module("django.utils.crypto", salted_hmac=_salted_hmac)
    _module("django.utils.translation", gettext_lazy=str)
    _module("django.views.decorators.debug", sensitive_variables=_decorator)
    _module("netbox.constants", RQ_QUEUE_DEFAULT="default")
    _module("netbox.jobs", Job=JobRow, JobRunner=JobRunner, system_job=_decorator)
    _module("rq", get_current_job=lambda: None)
    _module("utilities.choices", ChoiceSet=object)

    package = pathlib.Path(folder) / "netbox_proxbox"
    # Without their __init__.py, which imports NetBox's pages.
    _module("netbox_proxbox").__path__ = [str(package)]
    _module("netbox_proxbox.views").__path__ = [str(package / "views")]
    models = Models("netbox_proxbox.models")
    for name in ("", ".proxmox_cluster", ".proxmox_node", ".sync_state"):
        sys.modules[f"netbox_proxbox.models{name}"] = models
    models.ProxmoxEndpoint = ProxmoxEndpoint
    models.ProxboxPluginSettings = types.SimpleNamespace(get_solo=lambda: SETTINGS)
    # The tests report failures.
    logging.getLogger("netbox_proxbox").addHandler(logging.NullHandler())
    _record()


def plugin(name):
    """A module of the plugin."""
    return importlib.import_module(f"netbox_proxbox.{name}")


def _record():
    """Records the requests, the frames of streams and the delays of the plugin in the current NetBox."""
    send = requests.Session.send

    def sent(session, request, **options):
        response = send(session, request, **options)
        exchange = Exchange(
            request.method, request.path_url, dict(request.headers), request.body, response.status_code
        )
        CURRENT.get().exchanges.append(exchange)
        return response

    requests.Session.send = sent

    run_sync_stream = plugin("services.backend_proxy").run_sync_stream

    def streamed(path, *, on_frame, **options):
        frames = []
        CURRENT.get().streams.append((path, frames))

        def framed(event, data):
            frames.append((time.monotonic(), event, data))
            on_frame(event, data)

        return run_sync_stream(path, on_frame=framed, **options)

    plugin("services").run_sync_stream = streamed

    clock = types.SimpleNamespace(
        monotonic=time.monotonic, sleep=lambda seconds: CURRENT.get().slept.append(seconds)
    )
    plugin("jobs").time = plugin("sync_stages").time = plugin("services.backend_auth").time_module = clock
