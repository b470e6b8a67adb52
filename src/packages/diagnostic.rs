//! Everything that can be said about a package, as data.

use serde::Serialize;

use super::json::{Pointer, lines_of};
use super::text;

/// How much a diagnostic matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The package cannot run.
    Error,
    /// It runs, but probably not as meant.
    Warning,
    /// Worth knowing.
    Info,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $level:ident $name:literal,)+) => {
        /// What a diagnostic is about. The names are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl Code {
            /// All codes, in the order of the docs.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// How much it matters, always the same for one code.
            #[must_use]
            pub const fn level(self) -> Level {
                match self { $(Self::$variant => Level::$level),+ }
            }

            /// The code of this name.
            #[must_use]
            pub fn from_text(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == name)
            }
        }
    };
}

codes! {
    /// `manifest.json` is beyond 1 MiB.
    ManifestTooLarge = Error "manifest_too_large",
    /// It is not UTF-8.
    ManifestNotUtf8 = Error "manifest_not_utf8",
    /// It begins with a byte order mark.
    ManifestBom = Warning "manifest_bom",
    /// It is not JSON.
    ManifestSyntax = Error "manifest_syntax",
    /// Its arrays and objects are nested too deeply.
    ManifestTooDeep = Error "manifest_too_deep",
    /// A key occurs twice in one object.
    DuplicateKey = Error "duplicate_key",
    /// A value is of another type than the key wants.
    WrongType = Error "wrong_type",
    /// A required key is absent.
    MissingKey = Error "missing_key",
    /// A key that the manifest does not have.
    UnknownKey = Error "unknown_key",
    /// A key in its older spelling.
    OlderSpelling = Info "older_spelling",
    /// A key in both its spellings.
    BothSpellings = Error "both_spellings",
    /// `info.schema` names another schema.
    UnsupportedSchema = Error "unsupported_schema",
    /// `config_script_api_version` is another than `"1"`.
    UnsupportedApiVersion = Error "unsupported_api_version",
    /// A string that must say something is empty.
    TextEmpty = Error "text_empty",
    /// A string is too long.
    TextTooLong = Error "text_too_long",
    /// `info.version` is no semantic version.
    VersionNotSemver = Warning "version_not_semver",
    /// A number is below the least allowed.
    NumberTooSmall = Error "number_too_small",
    /// A limit is above what this instance grants.
    LimitAboveCap = Error "limit_above_cap",
    /// A value is none of those to choose from.
    InvalidChoice = Error "invalid_choice",
    /// A name that no environment variable can have.
    EnvNameInvalid = Error "env_name_invalid",
    /// A variable that the runtime sets itself.
    EnvNameReserved = Error "env_name_reserved",
    /// A value that no environment variable can have.
    EnvValueInvalid = Error "env_value_invalid",
    /// A name that Excel does not allow for a sheet.
    OutputSheetInvalid = Error "output_sheet_invalid",
    /// A field id of another form than `^[a-z][a-z0-9_]*$`.
    FieldIdInvalid = Error "field_id_invalid",
    /// A field id that scripts use with another meaning.
    FieldIdReserved = Warning "field_id_reserved",
    /// A field stands in `columns.order` twice.
    FieldDuplicate = Error "field_duplicate",
    /// A field of `columns.order` has no entry in `columns.meta`.
    FieldWithoutMeta = Error "field_without_meta",
    /// A field of `columns.meta` is not in `columns.order`.
    FieldWithoutOrder = Error "field_without_order",
    /// More fields than a sheet has columns.
    TooManyFields = Error "too_many_fields",
    /// There are no fields.
    NoFields = Warning "no_fields",
    /// Two fields share a label.
    LabelDuplicate = Warning "label_duplicate",
    /// A script path of another form than its key wants.
    ScriptPathInvalid = Error "script_path_invalid",
    /// A script that is not in the package.
    ScriptMissing = Error "script_missing",
    /// A script in `columns/` that no field uses.
    ScriptUnused = Warning "script_unused",
    /// A stage lists one script twice.
    HookDuplicate = Warning "hook_duplicate",
    /// `requirements.txt` is too large, or has too many requirements.
    RequirementsTooLarge = Error "requirements_too_large",
    /// It is not UTF-8.
    RequirementsNotUtf8 = Error "requirements_not_utf8",
    /// A line of it is no requirement.
    RequirementSyntax = Error "requirement_syntax",
    /// A line of it has an option that is not a package's to give.
    RequirementOption = Error "requirement_option",
    /// A line of it names a URL, a repository or a path.
    RequirementSource = Error "requirement_source",
    /// A hash that cannot be checked, or is missing beside others.
    RequirementHash = Error "requirement_hash",
    /// A script is not valid Python.
    ScriptSyntax = Error "script_syntax",
    /// It is not UTF-8.
    ScriptNotUtf8 = Error "script_not_utf8",
    /// It is beyond 1 MiB.
    ScriptTooLarge = Error "script_too_large",
    /// It is nested too deeply to be parsed.
    ScriptTooDeep = Error "script_too_deep",
    /// It has syntax that Python 3.11 does not have.
    ScriptNewerPython = Warning "script_newer_python",
    /// It could not be looked at without running it.
    ScriptNotChecked = Warning "script_not_checked",
    /// A function requires a parameter that the runtime does not pass.
    ScriptUnknownParameter = Error "script_unknown_parameter",
    /// A function that the runtime calls is `async`.
    ScriptAsync = Error "script_async",
    /// A function that the runtime calls has a `yield` in it.
    ScriptGenerator = Error "script_generator",
    /// A script defines nothing that is ever called.
    ScriptNoFunction = Warning "script_no_function",
    /// A hook does not define `run`.
    HookNoRun = Error "hook_no_run",
    /// A file that is no script, such as one in `vendor/`, cannot be read as Python.
    ModuleUnreadable = Warning "module_unreadable",
    /// A module has the name of one of the standard library or of the runner.
    ModuleShadowed = Error "module_shadowed",
    /// A module is compiled.
    ModuleNotPure = Warning "module_not_pure",
    /// The import of a script raised.
    ScriptImportFailed = Error "script_import_failed",
    /// A function's signature is not what it looks like: a decorator has changed it into one that cannot be called.
    ScriptRefused = Error "script_refused",
    /// A script did not come to an end.
    ScriptTimeLimit = Error "script_time_limit",
    /// A script took more memory than there is.
    ScriptMemoryLimit = Error "script_memory_limit",
    /// A script ended the process that it ran in.
    ScriptCrashed = Error "script_crashed",
    /// A row detector raised.
    RowDetectorException = Warning "runtime.row_detector.exception",
    /// A row detector returned something else than scores.
    RowDetectorInvalidResult = Error "runtime.row_detector.invalid_result",
    /// A column detector raised.
    ColumnDetectorException = Warning "runtime.column_detector.exception",
    /// A column detector returned something else than scores.
    ColumnDetectorInvalidResult = Error "runtime.column_detector.invalid_result",
    /// A column detector scored a field that the manifest does not have.
    ColumnDetectorUnknownField = Error "runtime.column_detector.unknown_field",
    /// `transform` raised.
    TransformException = Warning "runtime.transform.exception",
    /// `transform` returned something else than as many values as it got.
    TransformInvalidResult = Error "runtime.transform.invalid_result",
    /// `validate` raised.
    ValidatorException = Warning "runtime.validator.exception",
    /// `validate` returned something else than issues.
    ValidatorInvalidResult = Error "runtime.validator.invalid_result",
    /// `validate` returned an issue that is none.
    ValidatorInvalidIssue = Error "runtime.validator.invalid_issue",
    /// Some or all scripts were not tried out.
    DryRunSkipped = Warning "dry_run_skipped",
    /// The scripts broke the container in which they were tried out.
    DryRunFailed = Error "dry_run_failed",
    /// There is more to say than is listed.
    MoreDiagnostics = Warning "more_diagnostics",
}

/// One thing to say about a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How much it matters.
    pub level: Level,
    /// What it is about.
    pub code: Code,
    /// The file in the package.
    pub path: String,
    /// The JSON pointer (RFC 6901) into the file, if it is `manifest.json`. When the exact one is too long or not fit to
    /// print, that of the nearest value around it.
    pub pointer: Option<String>,
    /// The 1-based line in the file.
    pub line: Option<usize>,
    /// What is wrong, in a sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// How many diagnostics there are of each level, listed or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Errors.
    pub errors: usize,
    /// Warnings.
    pub warnings: usize,
    /// Infos.
    pub infos: usize,
}

/// Collects diagnostics about one package, bounded.
#[derive(Debug, Default)]
pub(super) struct Diagnostics {
    list: Vec<Diagnostic>,
    counts: Counts,
    /// Where diagnostics point to whose lines are not known yet, with their place in the list.
    pending: Vec<(usize, Pointer)>,
}

impl Diagnostics {
    /// Most diagnostics that are listed.
    pub(super) const MAX_LISTED: usize = 200;
    /// Listed diagnostics after which no near misses are looked for: a look can be at thousands of names.
    const MAX_SUGGESTING: usize = 20;
    /// Longest pointer that is shown, in bytes.
    const MAX_POINTER: usize = 512;

    /// Adds one about a place in `manifest.json`. Its line is found by [`locate`](Self::locate).
    pub(super) fn manifest(&mut self, at: &Pointer, code: Code, message: String, hint: Option<String>) {
        if !self.count(code) {
            return;
        }
        let mut shown = at.clone();
        while shown.as_str().len() > Self::MAX_POINTER || shown.as_str().chars().any(char::is_control) {
            shown = shown.parent();
        }
        self.pending.push((self.list.len(), at.clone()));
        self.list.push(Diagnostic {
            level: code.level(),
            code,
            path: super::MANIFEST.to_owned(),
            pointer: Some(shown.as_str().to_owned()),
            line: None,
            message,
            hint,
        });
    }

    /// Finds the lines of all diagnostics about places in `text`, the manifest.
    pub(super) fn locate(&mut self, text: &str) {
        let pointers: Vec<&Pointer> = self.pending.iter().map(|(_, pointer)| pointer).collect();
        let lines = lines_of(text, &pointers);
        for ((index, _), line) in self.pending.drain(..).zip(lines) {
            if let Some(diagnostic) = self.list.get_mut(index) {
                diagnostic.line = line;
            }
        }
    }

    /// The candidate that `word` most likely meant, while suggestions are still worth their time.
    pub(super) fn suggest<'a>(&self, word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        if self.list.len() < Self::MAX_SUGGESTING { text::nearest(word, candidates) } else { None }
    }

    /// Adds one about a file as a whole, or about a line of it.
    pub(super) fn file(&mut self, path: &str, line: Option<usize>, code: Code, message: String, hint: Option<String>) {
        if self.count(code) {
            let path = path.to_owned();
            self.list.push(Diagnostic { level: code.level(), code, path, pointer: None, line, message, hint });
        }
    }

    /// Whether there is any error so far.
    pub(super) fn has_errors(&self) -> bool {
        self.counts.errors > 0
    }

    /// The list, errors first and else in the order found, and the exact counts.
    pub(super) fn finish(mut self) -> (Vec<Diagnostic>, Counts) {
        self.list.sort_by_key(|diagnostic| diagnostic.level);
        let Counts { errors, warnings, infos } = self.counts;
        let unlisted = errors + warnings + infos - self.list.len();
        if unlisted > 0 {
            let (code, hint) = (Code::MoreDiagnostics, Some("Fix those listed, then validate again.".to_owned()));
            let message = format!("There are {unlisted} more than the {} listed.", Self::MAX_LISTED);
            self.counts.warnings += 1;
            let path = super::MANIFEST.to_owned();
            self.list.push(Diagnostic { level: code.level(), code, path, pointer: None, line: None, message, hint });
        }
        (self.list, self.counts)
    }

    /// Counts one, and says whether it is to be listed too.
    fn count(&mut self, code: Code) -> bool {
        match code.level() {
            Level::Error => self.counts.errors += 1,
            Level::Warning => self.counts.warnings += 1,
            Level::Info => self.counts.infos += 1,
        }
        self.list.len() < Self::MAX_LISTED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_bound_diagnostics_are_counted_but_not_listed() {
        let mut diagnostics = Diagnostics::default();
        for _ in 0..300 {
            diagnostics.manifest(&Pointer::default(), Code::UnknownKey, String::new(), None);
        }
        let (list, counts) = diagnostics.finish();
        assert_eq!(list.len(), Diagnostics::MAX_LISTED + 1);
        assert_eq!(list.last().unwrap().message, "There are 100 more than the 200 listed.");
        assert_eq!(counts, Counts { errors: 300, warnings: 1, infos: 0 });
    }

    #[test]
    fn a_pointer_that_is_not_fit_to_print_gives_way_to_the_value_around_it() {
        let mut diagnostics = Diagnostics::default();
        for key in ["\u{1b}[31m", &"k".repeat(600)] {
            let at = Pointer::default().key("env").key(key);
            diagnostics.manifest(&at, Code::UnknownKey, String::new(), None);
        }
        let (list, _) = diagnostics.finish();
        assert!(list.iter().all(|diagnostic| diagnostic.pointer.as_deref() == Some("/env")));
    }

    #[test]
    fn codes_have_unique_names_and_serialize_as_them() {
        let names: std::collections::HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
