//! What to do about each kind of failure: the last column of `docs/developers/error-kinds.md`, with which a test compares it.

use super::FailureKind;

impl FailureKind {
    /// What to do about it, as a phrase for people.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::ScriptError => {
                "see `script`, `function`, `line`; look for `os._exit`, `kill`, or a native library that crashes"
            }
            Self::HookFailed => {
                "see the `hook.exit` event and the `log` event before it, which has the exception's text"
            }
            Self::Timeout => {
                "raise `engine.defaults.timeout_ms` or `--timeout-ms`, or find the script that waits or loops"
            }
            Self::OutOfMemory => "raise `engine.defaults.memory_mb` or `--memory-mb`, or split the inputs",
            Self::CpuLimit => "do less per row, or have the admin raise `ADE_WORKER_CPU_SECONDS`",
            Self::DiskFull => "raise `memory_mb`, or write less",
            Self::OutputTooLarge => "split the inputs, write less, or raise the limit named",
            Self::OutputInvalid => "leave the files in `/job/out` to the runner",
            Self::ProtocolViolation => "look for code that writes to file descriptors it did not open",
            Self::Cancelled => "retry it, or submit it again, when it is wanted after all",
            Self::PackageInvalid => "`ade config validate PACKAGE` shows everything that is wrong with it",
            Self::PackageTooLarge => "see the message for the cap, and leave out what the scripts do not need",
            Self::RequirementsInvalid => "mend the line that `line` names, as docs/users/dependencies.md has it",
            Self::DependencyUnavailable => "look `detail.code` up in docs/users/dependencies.md",
            Self::DependencyNetworkDenied => "fill the wheelhouse (`ade wheelhouse`), or ask whoever the message names",
            Self::DependencyInstallFailed => {
                "look `detail.code` up in docs/users/dependencies.md, and see `install.log`"
            }
            Self::LimitInvalid => "ask for less, or have the admin raise the cap named",
            Self::InputMissing => "check that it is there, can be read, and is not being written",
            Self::InputTooLarge => "raise `memory_mb`, or run over fewer",
            Self::InputEmpty => "export it again",
            Self::InputNotWorkbook => "export it as xlsx or csv",
            Self::InputEncrypted => "save it without a password",
            Self::InputCorrupt => "save it anew with a spreadsheet program",
            Self::InputZipBomb => "save it anew with a spreadsheet program; as it is, it is not opened",
            Self::InputBadEncoding => "save it as UTF-8",
            Self::InputCellTooLarge => "shorten that cell, or leave its column out",
            Self::InputTooWide => "leave out columns",
            Self::InputNoSheets => "add a worksheet that has the data",
            Self::InputNoData => "check that these are the files that were meant",
            Self::RunnerCrashed => "report it, with `events.ndjson`",
            Self::ImageMissing => "`ade image build` builds it",
            Self::RuntimeMissing => "install it, or unset `ADE_RUNTIME`",
            Self::EngineUnavailable => "`ade doctor` says what stands in the way",
            Self::HostIo => "free space, or choose another folder",
            Self::QueueTimeout => "submit it again when there is less to do, or have the admin add capacity",
            Self::NodeLost => "look for what ended the process, then submit it again",
        }
    }
}
