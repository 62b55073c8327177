"""What each failure means to a shell or a supervisor: the exit codes, after ``sysexits.h`` where it has one."""

from __future__ import annotations

from enum import IntEnum

from neuron import errors as e


class Exit(IntEnum):
    """Every code this program ends with."""

    OK = 0
    FAILURE = 1
    CRITICAL = 2
    USAGE = 64
    UNAVAILABLE = 69
    INTERNAL = 70
    DEVICE = 71
    IO = 74
    TEMPORARY = 75
    PERMISSION = 77
    CONFIG = 78
    INTERRUPTED = 130
    PIPE = 141


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.FAILURE: "the operation failed, or there is no such thing; the message says which",
    Exit.CRITICAL: "of neuron health --check: critical; 0 is well, 1 a warning",
    Exit.USAGE: "the command line can't be taken as it stands",
    Exit.UNAVAILABLE: "nobody answers: no node, or no source of a model",
    Exit.INTERNAL: "a fault of this program or of the device",
    Exit.DEVICE: "of neuron serve: a device failed again after its model was loaded anew; start it again",
    Exit.IO: "a file, a disk or a connection failed",
    Exit.TEMPORARY: "busy now, try again: port taken, node full or leaving",
    Exit.PERMISSION: "not allowed",
    Exit.CONFIG: "a configuration that can't be taken",
    Exit.INTERRUPTED: "ended by Ctrl-C",
    Exit.PIPE: "whoever read the output went away",
}
"""What ``neuron --help`` and the manual page say of each."""

EXITS: dict[type[e.NeuronError], Exit] = {
    e.NeuronError: Exit.INTERNAL,
    e.InvalidValue: Exit.USAGE,
    e.UnsupportedParameter: Exit.USAGE,
    e.MalformedJson: Exit.FAILURE,
    e.UnsupportedMediaType: Exit.FAILURE,
    e.RequestTooLarge: Exit.FAILURE,
    e.ForbiddenHost: Exit.PERMISSION,
    e.InvalidApiKey: Exit.PERMISSION,
    e.InsufficientScope: Exit.PERMISSION,
    e.InvalidReference: Exit.USAGE,
    e.UsageError: Exit.USAGE,
    e.ConfigError: Exit.CONFIG,
    e.ExposedSecret: Exit.PERMISSION,
    e.KeyNotFound: Exit.FAILURE,
    e.ModelNotLoaded: Exit.FAILURE,
    e.AlreadyLoaded: Exit.OK,
    e.LoadedDifferently: Exit.FAILURE,
    e.UnknownHarness: Exit.USAGE,
    e.HarnessNotEnabled: Exit.CONFIG,
    e.CudaUnavailable: Exit.FAILURE,
    e.PreflightError: Exit.FAILURE,
    e.RepoFetchFailed: Exit.UNAVAILABLE,
    e.FilesDiffer: Exit.FAILURE,
    e.NotFetched: Exit.FAILURE,
    e.ModelInUse: Exit.FAILURE,
    e.EmptyRepo: Exit.FAILURE,
    e.UnsafeWeights: Exit.FAILURE,
    e.UnsupportedArchitecture: Exit.FAILURE,
    e.QuantNotFound: Exit.FAILURE,
    e.InsufficientMemory: Exit.FAILURE,
    e.InvalidModelFile: Exit.FAILURE,
    e.WeightMismatch: Exit.FAILURE,
    e.WeightsChanged: Exit.FAILURE,
    e.ModelUnloading: Exit.TEMPORARY,
    e.PromptTooLong: Exit.FAILURE,
    e.PromptNeverFits: Exit.FAILURE,
    e.InsufficientCache: Exit.TEMPORARY,
    e.QueueFull: Exit.TEMPORARY,
    e.OverShare: Exit.TEMPORARY,
    e.ShuttingDown: Exit.TEMPORARY,
    e.RequestNotFound: Exit.FAILURE,
    e.TemplateRenderFailed: Exit.FAILURE,
    e.ChainedConversationNotSupported: Exit.FAILURE,
    e.PreviousResponseNotFound: Exit.FAILURE,
    e.ResponseNotFound: Exit.FAILURE,
    e.ResponseStoreFailed: Exit.IO,
    e.NumericalError: Exit.INTERNAL,
    e.DeviceFault: Exit.INTERNAL,
    e.NodeUnreachable: Exit.UNAVAILABLE,
    e.NodeAnsweredError: Exit.FAILURE,
    e.StreamCut: Exit.IO,
    e.SessionBusy: Exit.TEMPORARY,
    e.SessionUnreadable: Exit.FAILURE,
    e.AnswerUnusable: Exit.FAILURE,
    e.AddressInUse: Exit.TEMPORARY,
}


BY_CODE = {cls.code: exit_ for cls, exit_ in EXITS.items() if "code" in vars(cls)}


BY_STATUS: dict[object, Exit] = {401: Exit.PERMISSION, 403: Exit.PERMISSION}
"""For servers of others, which have other words for a key that they don't take, or none."""


def exit_code(error: e.NeuronError) -> Exit:
    """The code for an error, the same whether it happened here or on the node that answered with it."""
    if isinstance(error, e.NodeAnsweredError):
        by_status = BY_STATUS.get(error.details.get("status"), Exit.FAILURE)
        return BY_CODE.get(str(error.details.get("remote_code")), by_status)
    return EXITS[type(error)]
