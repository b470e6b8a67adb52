//! From JSON to a [`Manifest`], collecting everything that is wrong on the way.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value};

use super::caps::Caps;
use super::diagnostic::{Code, Diagnostics};
use super::json::{Document, Pointer};
use super::manifest::{
    Column, Defaults, Env, Hook, Info, Manifest, SCHEMA, SCRIPT_API_VERSION, Stage, Writer, WriterMode,
};
use super::scripts::Role;
use super::text::{quoted, shown};

/// Shortest timeout, in milliseconds.
const MIN_TIMEOUT_MS: u64 = 1_000;
/// Least memory, in MiB.
const MIN_MEMORY_MB: u64 = 64;
/// Longest title, label, field id and synonym, in characters.
const MAX_TEXT: usize = 255;
/// Longest version, type hint and prefix, in characters.
const MAX_SHORT_TEXT: usize = 64;
/// Longest value of an environment variable, in characters. Linux takes 128 KiB per variable.
const MAX_ENV_VALUE: usize = 32_767;
/// Columns of an Excel sheet.
const MAX_FIELDS: usize = 16_384;
/// Longest name of an Excel sheet, in UTF-16 code units.
const MAX_SHEET_NAME: usize = 31;

/// Variables that the runtime sets, exactly and by prefix.
const RESERVED_ENV: [&str; 15] = [
    "PATH", "HOME", "TMPDIR", "LANG", "TZ", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy",
    "no_proxy", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT",
];
const RESERVED_ENV_PREFIXES: [&str; 3] = ["LD_", "PYTHON", "ADE_"];

/// A key and its older spelling.
type Spellings = (&'static str, &'static str);
const NETWORK: Spellings = ("runtime_network_access", "allow_net");
const THRESHOLD: Spellings = ("mapping_score_threshold", "min_mapping_confidence");

/// A script that the manifest names.
pub(super) struct ScriptRef {
    pub(super) at: Pointer,
    pub(super) path: String,
    pub(super) role: Role,
    /// Whether jobs run it.
    pub(super) enabled: bool,
}

/// What was understood of a manifest, even if it has errors.
pub(super) struct Parsed {
    /// Absent when something that it needs is missing or wrong. Present does not mean valid: see the diagnostics.
    pub(super) manifest: Option<Manifest>,
    /// Scripts named in the right form, in the order they are named.
    pub(super) scripts: Vec<ScriptRef>,
}

/// Reads a manifest out of its JSON.
pub(super) fn parse(document: &Document<'_>, caps: &Caps, diagnostics: &mut Diagnostics) -> Parsed {
    let mut parser = Parser { caps, diagnostics, scripts: Vec::new() };
    let manifest = parser.manifest(&document.value);
    Parsed { manifest, scripts: parser.scripts }
}

/// An object of the manifest and where it is.
struct Object<'v> {
    at: Pointer,
    members: &'v Map<String, Value>,
}

impl<'v> Object<'v> {
    fn get(&self, key: &str) -> Option<(Pointer, &'v Value)> {
        self.members.get(key).map(|value| (self.at.key(key), value))
    }
}

struct Parser<'a> {
    caps: &'a Caps,
    diagnostics: &'a mut Diagnostics,
    scripts: Vec<ScriptRef>,
}

/// The parts of a manifest.
impl Parser<'_> {
    fn manifest(&mut self, value: &Value) -> Option<Manifest> {
        let root = self.object(Pointer::default(), value)?;
        self.known_keys(&root, &["$schema", "config_script_api_version", "info", "env", "engine", "hooks", "columns"]);
        if let Some((at, value)) = root.get("$schema") {
            // For editors; the file's own word for its schema is info.schema.
            self.string(&at, value);
        }
        self.fixed(&root, "config_script_api_version", SCRIPT_API_VERSION, Code::UnsupportedApiVersion);
        let info = self.required(&root, "info").and_then(|(at, value)| self.info(at, value));
        let env = root.get("env").map_or_else(Env::default, |(at, value)| self.env(at, value));
        let (defaults, writer) = root.get("engine").map_or_else(Default::default, |(at, value)| self.engine(at, value));
        let hooks = root.get("hooks").map_or_else(BTreeMap::new, |(at, value)| self.hooks(at, value));
        let columns = self.required(&root, "columns").and_then(|(at, value)| self.columns(at, value));
        Some(Manifest { info: info?, env, defaults, writer, hooks, columns: columns? })
    }

    fn info(&mut self, at: Pointer, value: &Value) -> Option<Info> {
        let info = self.object(at, value)?;
        self.known_keys(&info, &["schema", "title", "version", "description"]);
        self.fixed(&info, "schema", SCHEMA, Code::UnsupportedSchema);
        let title = self.required_text(&info, "title", MAX_TEXT);
        let version = self.required_text(&info, "version", MAX_SHORT_TEXT);
        if let Some(version) = &version
            && !is_semver(version)
        {
            let at = info.at.key("version");
            self.say(
                &at,
                Code::VersionNotSemver,
                format!("info.version {} is not a semantic version.", quoted(version)),
                hint("Use three numbers, such as 1.4.0, so that people can tell which of two is newer."),
            );
        }
        let description = info.get("description").and_then(|(at, value)| self.string(&at, value)).map(str::to_owned);
        Some(Info { title: title?, version: version?, description })
    }

    fn env(&mut self, at: Pointer, value: &Value) -> Env {
        let Some(env) = self.object(at, value) else {
            return Env::default();
        };
        let mut variables = BTreeMap::new();
        for (name, value) in env.members {
            let at = env.at.key(name);
            if !is_variable_name(name) {
                self.say(
                    &at,
                    Code::EnvNameInvalid,
                    format!("{} cannot be the name of an environment variable.", quoted(name)),
                    hint("Use letters, digits and _, not beginning with a digit."),
                );
            } else if is_reserved_variable(name) {
                self.say(
                    &at,
                    Code::EnvNameReserved,
                    format!("The runtime sets {} itself.", shown(name)),
                    hint("Choose another name; PATH, HOME, TMPDIR, LANG, TZ, the variables of proxies and certificates, LD_*, PYTHON* and ADE_* are reserved."),
                );
            }
            let Some(value) = self.string(&at, value) else {
                continue;
            };
            let length = value.chars().count();
            if value.contains('\0') {
                let message = format!("The value of {} has a NUL character in it.", shown(name));
                self.say(&at, Code::EnvValueInvalid, message, hint("Put binary data into a file in resources/."));
            } else if length > MAX_ENV_VALUE {
                let message =
                    format!("The value of {} has {length} characters; the limit is {MAX_ENV_VALUE}.", shown(name));
                self.say(&at, Code::EnvValueInvalid, message, hint("Put long texts into a file in resources/."));
            }
            variables.insert(name.clone(), value.to_owned());
        }
        Env(variables)
    }

    fn engine(&mut self, at: Pointer, value: &Value) -> (Defaults, Writer) {
        let Some(engine) = self.object(at, value) else {
            return Default::default();
        };
        self.known_keys(&engine, &["defaults", "writer"]);
        (
            engine.get("defaults").map_or_else(Defaults::default, |(at, value)| self.defaults(at, value)),
            engine.get("writer").map_or_else(Writer::default, |(at, value)| self.writer(at, value)),
        )
    }

    fn defaults(&mut self, at: Pointer, value: &Value) -> Defaults {
        let Some(defaults) = self.object(at, value) else {
            return Defaults::default();
        };
        self.known_keys(&defaults, &["timeout_ms", "memory_mb", NETWORK.0, NETWORK.1, THRESHOLD.0, THRESHOLD.1]);
        Defaults {
            timeout_ms: self.limit(&defaults, "timeout_ms", "ms", MIN_TIMEOUT_MS, self.caps.timeout_ms),
            memory_mb: self.limit(&defaults, "memory_mb", "MiB", MIN_MEMORY_MB, self.caps.memory_mb),
            runtime_network_access: self
                .spelled(&defaults, NETWORK)
                .and_then(|(at, value)| self.boolean(&at, value))
                .unwrap_or(false),
            mapping_score_threshold: self.spelled(&defaults, THRESHOLD).and_then(|(at, value)| self.score(&at, value)),
        }
    }

    fn writer(&mut self, at: Pointer, value: &Value) -> Writer {
        let mut writer = Writer::default();
        let Some(given) = self.object(at, value) else {
            return writer;
        };
        self.known_keys(&given, &["mode", "append_unmapped_columns", "unmapped_prefix", "output_sheet"]);
        if let Some(mode) = given.get("mode").and_then(|(at, value)| self.mode(&at, value)) {
            writer.mode = mode;
        }
        writer.append_unmapped_columns = self.flag(&given, "append_unmapped_columns", true);
        if let Some(prefix) =
            given.get("unmapped_prefix").and_then(|(at, value)| self.text(&at, value, 0, MAX_SHORT_TEXT))
        {
            writer.unmapped_prefix = prefix;
        }
        if let Some(name) = given.get("output_sheet").and_then(|(at, value)| self.sheet_name(&at, value)) {
            writer.output_sheet = name;
        }
        writer
    }

    fn hooks(&mut self, at: Pointer, value: &Value) -> BTreeMap<Stage, Vec<Hook>> {
        let mut stages = BTreeMap::new();
        let Some(hooks) = self.object(at, value) else {
            return stages;
        };
        let names: Vec<&str> =
            Stage::ALL.iter().flat_map(|stage| [Some(stage.as_str()), stage.alias()]).flatten().collect();
        self.known_keys(&hooks, &names);
        for stage in Stage::ALL {
            let given = match stage.alias() {
                // Both names of this stage are current, so neither is worth a word.
                Some(alias) if stage == Stage::OnAfterExtract => self.either(&hooks, (stage.as_str(), alias)),
                Some(alias) => self.spelled(&hooks, (stage.as_str(), alias)),
                None => hooks.get(stage.as_str()),
            };
            let scripts = given.map(|(at, value)| self.stage(&at, value)).unwrap_or_default();
            if !scripts.is_empty() {
                stages.insert(stage, scripts);
            }
        }
        stages
    }

    fn stage(&mut self, at: &Pointer, value: &Value) -> Vec<Hook> {
        let mut hooks = Vec::new();
        let mut seen = HashSet::new();
        for (index, value) in self.array(at, value).unwrap_or_default().iter().enumerate() {
            let Some(entry) = self.object(at.index(index), value) else {
                continue;
            };
            self.known_keys(&entry, &["script", "enabled"]);
            let enabled = self.flag(&entry, "enabled", true);
            let Some((script_at, script)) = self.required(&entry, "script") else {
                continue;
            };
            let Some(script) = self.string(&script_at, script) else {
                continue;
            };
            // A bare file name is one in hooks/.
            let path = if script.contains('/') { script.to_owned() } else { format!("hooks/{script}") };
            if !is_script_path(&path, "hooks", true) {
                let message = format!("{} is not the path of a hook script.", quoted(script));
                self.say(
                    &script_at,
                    Code::ScriptPathInvalid,
                    message,
                    hint("Write hooks/name.py, or name.py for short."),
                );
                continue;
            }
            if !seen.insert(path.clone()) {
                let message = format!("{path} is listed twice for one stage and will run twice.");
                self.say(&script_at, Code::HookDuplicate, message, hint("Remove one of them."));
            }
            self.scripts.push(ScriptRef { at: script_at, path: path.clone(), role: Role::Hook, enabled });
            hooks.push(Hook { script: path, enabled });
        }
        hooks
    }

    fn columns(&mut self, at: Pointer, value: &Value) -> Option<Vec<Column>> {
        let columns = self.object(at, value)?;
        self.known_keys(&columns, &["order", "meta"]);
        let order = self.required(&columns, "order").and_then(|(at, value)| Some((self.order(&at, value)?, at)));
        let meta = self.required(&columns, "meta").and_then(|(at, value)| self.object(at, value));
        let mut fields = HashMap::new();
        if let Some(meta) = &meta {
            for (field, value) in meta.members {
                let at = meta.at.key(field);
                if self.field_id(&at, field)
                    && let Some(column) = self.column(at, field, value)
                {
                    fields.insert(field.as_str(), column);
                }
            }
        }
        let (order, order_at) = order?;
        let meta = meta?;
        self.same_fields(&order, &order_at, &meta);
        if order.is_empty() {
            self.say(
                &order_at,
                Code::NoFields,
                "columns.order names no field: every column of the input stays unmapped.".to_owned(),
                hint("Add fields to columns.order and columns.meta."),
            );
        }
        let ordered = order.iter().filter_map(|(_, field)| fields.remove(field)).collect::<Vec<_>>();
        self.distinct_labels(&ordered, &meta.at);
        Some(ordered)
    }

    /// The field ids in `columns.order` with their positions, each once.
    fn order<'v>(&mut self, at: &Pointer, value: &'v Value) -> Option<Vec<(usize, &'v str)>> {
        let values = self.array(at, value)?;
        if values.len() > MAX_FIELDS {
            self.say(
                at,
                Code::TooManyFields,
                format!("There are {} fields; an Excel sheet has {MAX_FIELDS} columns.", values.len()),
                hint("Split the package in two."),
            );
            return None;
        }
        let mut order = Vec::with_capacity(values.len());
        let mut seen = HashSet::new();
        for (index, value) in values.iter().enumerate() {
            let at = at.index(index);
            let Some(field) = self.string(&at, value) else {
                continue;
            };
            if !self.field_id(&at, field) {
                continue;
            }
            if seen.insert(field) {
                order.push((index, field));
            } else {
                let message = format!("columns.order names the field {} twice.", quoted(field));
                self.say(&at, Code::FieldDuplicate, message, hint("Remove one of them."));
            }
        }
        Some(order)
    }

    /// `columns.order` and `columns.meta` must hold the same fields.
    fn same_fields(&mut self, order: &[(usize, &str)], order_at: &Pointer, meta: &Object<'_>) {
        for (index, field) in order {
            if !meta.members.contains_key(*field) {
                let near = self.diagnostics.suggest(field, meta.members.keys().map(String::as_str));
                self.say(
                    &order_at.index(*index),
                    Code::FieldWithoutMeta,
                    format!("columns.order names the field {}, but columns.meta does not describe it.", quoted(field)),
                    meant_or(near, "Describe it in columns.meta, or take it out of columns.order."),
                );
            }
        }
        let ordered: HashSet<&str> = order.iter().map(|(_, field)| *field).collect();
        for field in meta.members.keys().filter(|field| is_field_id(field) && !ordered.contains(field.as_str())) {
            let near = self.diagnostics.suggest(field, ordered.iter().copied());
            self.say(
                &meta.at.key(field),
                Code::FieldWithoutOrder,
                format!("columns.meta describes the field {}, but columns.order does not name it.", quoted(field)),
                meant_or(near, "Add it to columns.order, with \"enabled\": false in columns.meta if it is not wanted."),
            );
        }
    }

    fn field_id(&mut self, at: &Pointer, field: &str) -> bool {
        if !is_field_id(field) {
            self.say(
                at,
                Code::FieldIdInvalid,
                format!("{} cannot be the id of a field.", quoted(field)),
                hint("Use lower-case letters, digits and _, beginning with a letter, at most 255 characters."),
            );
            return false;
        }
        if field == "self" {
            self.say(
                at,
                Code::FieldIdReserved,
                "A field named \"self\" cannot be scored by the scripts of other fields.".to_owned(),
                hint("Scores under \"self\" go to the script's own field: choose another id."),
            );
        }
        true
    }

    fn column(&mut self, at: Pointer, field: &str, value: &Value) -> Option<Column> {
        let meta = self.object(at, value)?;
        let keys = ["label", "required", "enabled", "script", "synonyms", "type_hint", "pattern", "allowed"];
        self.known_keys(&meta, &keys);
        let label = self.required_text(&meta, "label", MAX_TEXT);
        let required = self.flag(&meta, "required", false);
        let enabled = self.flag(&meta, "enabled", true);
        let script = meta.get("script").and_then(|(at, value)| self.column_script(at, value, enabled));
        let synonyms = meta.get("synonyms").map_or_else(Vec::new, |(at, value)| self.synonyms(&at, value));
        let type_hint = meta.get("type_hint").and_then(|(at, value)| self.text(&at, value, 0, MAX_SHORT_TEXT));
        let pattern = meta.get("pattern").and_then(|(at, value)| self.string(&at, value)).map(str::to_owned);
        let allowed = meta.get("allowed").and_then(|(at, value)| self.array(&at, value)).unwrap_or_default().to_vec();
        let field = field.to_owned();
        Some(Column { field, label: label?, required, enabled, script, synonyms, type_hint, pattern, allowed })
    }

    fn column_script(&mut self, at: Pointer, value: &Value, enabled: bool) -> Option<String> {
        let path = self.string(&at, value)?.to_owned();
        if !is_script_path(&path, "columns", false) {
            let message = format!("{} is not the path of a column script.", quoted(&path));
            self.say(&at, Code::ScriptPathInvalid, message, hint("Write columns/name.py."));
            return None;
        }
        self.scripts.push(ScriptRef { at, path: path.clone(), role: Role::Column, enabled });
        Some(path)
    }

    fn synonyms(&mut self, at: &Pointer, value: &Value) -> Vec<String> {
        let values = self.array(at, value).unwrap_or_default();
        let texts = values.iter().enumerate().map(|(index, value)| self.text(&at.index(index), value, 1, MAX_TEXT));
        texts.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    fn distinct_labels(&mut self, columns: &[Column], meta: &Pointer) {
        let mut seen: HashMap<String, &str> = HashMap::new();
        for column in columns.iter().filter(|column| column.enabled) {
            if let Some(first) = seen.insert(column.label.trim().to_lowercase(), &column.field) {
                self.say(
                    &meta.key(&column.field).key("label"),
                    Code::LabelDuplicate,
                    format!("{} is the label of {} as well.", quoted(&column.label), shown(first)),
                    hint("Two columns of the output will have one header: give each field its own label."),
                );
            }
        }
    }
}

/// Values of one kind, wherever they occur.
impl Parser<'_> {
    fn mode(&mut self, at: &Pointer, value: &Value) -> Option<WriterMode> {
        let name = self.string(at, value)?;
        let found = WriterMode::NAMED.iter().find(|(known, _)| *known == name).map(|(_, mode)| *mode);
        if found.is_none() {
            let near = self.diagnostics.suggest(name, WriterMode::NAMED.iter().map(|(known, _)| *known));
            let message =
                format!("{} is {}; it must be \"row_streaming\" or \"in_memory\".", at.dotted(), quoted(name));
            self.say(at, Code::InvalidChoice, message, meant(near));
        }
        found
    }

    fn sheet_name(&mut self, at: &Pointer, value: &Value) -> Option<String> {
        let name = self.string(at, value)?;
        let length = name.encode_utf16().count();
        let problem = if name.is_empty() {
            "is empty".to_owned()
        } else if length > MAX_SHEET_NAME {
            format!("is {length} characters long; the limit is {MAX_SHEET_NAME}")
        } else if name.contains(['[', ']', ':', '*', '?', '/', '\\']) {
            "has one of the characters [ ] : * ? / \\ in it".to_owned()
        } else if name.contains(is_not_xml) {
            "has a control character in it".to_owned()
        } else if name.starts_with('\'') || name.ends_with('\'') {
            "begins or ends with an apostrophe".to_owned()
        } else if name.eq_ignore_ascii_case("History") {
            "is a name that Excel keeps for itself".to_owned()
        } else {
            return Some(name.to_owned());
        };
        let message = format!("{} {} {problem}.", at.dotted(), quoted(name));
        self.say(at, Code::OutputSheetInvalid, message, hint("Choose a name that Excel allows for a sheet."));
        None
    }

    /// A limit of a job: a whole number, at least `least`, at most what the instance grants.
    fn limit(&mut self, object: &Object<'_>, key: &str, unit: &str, least: u64, cap: u64) -> Option<u64> {
        let (at, value) = object.get(key)?;
        let Some(number) = whole_number(value) else {
            self.wrong_type(&at, "a whole number", value);
            return None;
        };
        if number < least as f64 {
            let message = format!("{} is {number} {unit}; the least is {least} {unit}.", at.dotted());
            self.say(&at, Code::NumberTooSmall, message, None);
            return None;
        }
        if number > cap as f64 {
            let message = format!(
                "{} is {} {unit}; this instance allows at most {cap} {unit}.",
                at.dotted(),
                shown(&value.to_string())
            );
            let way_out =
                "Lower it, leave it out to get the instance's own limit, or ask the instance's administrator.";
            self.say(&at, Code::LimitAboveCap, message, hint(way_out));
        }
        // Saturates far above any cap.
        Some(value.as_u64().unwrap_or(number as u64))
    }

    fn score(&mut self, at: &Pointer, value: &Value) -> Option<f64> {
        let Some(score) = value.as_f64().filter(|_| value.is_number()) else {
            self.wrong_type(at, "a number", value);
            return None;
        };
        if score < 0.0 {
            self.say(at, Code::NumberTooSmall, format!("{} is {score}; the least is 0.", at.dotted()), None);
            return None;
        }
        Some(score)
    }

    /// A required string with only one right value.
    fn fixed(&mut self, object: &Object<'_>, key: &str, expected: &str, code: Code) {
        let Some((at, value)) = self.required(object, key) else {
            return;
        };
        let Some(text) = self.string(&at, value) else {
            return;
        };
        if text != expected {
            let message = format!("{} is {}; this runtime knows {expected:?}.", at.dotted(), quoted(text));
            self.say(
                &at,
                code,
                message,
                hint("Write the value that this runtime knows, or use a runtime that knows this one."),
            );
        }
    }

    fn required_text(&mut self, object: &Object<'_>, key: &str, most: usize) -> Option<String> {
        let (at, value) = self.required(object, key)?;
        self.text(&at, value, 1, most)
    }

    /// A string of `least` to `most` characters.
    fn text(&mut self, at: &Pointer, value: &Value, least: usize, most: usize) -> Option<String> {
        let text = self.string(at, value)?;
        let length = text.chars().count();
        if length < least {
            self.say(at, Code::TextEmpty, format!("{} is empty.", at.dotted()), None);
            return None;
        }
        if length > most {
            let message = format!("{} has {length} characters; the limit is {most}.", at.dotted());
            self.say(at, Code::TextTooLong, message, hint("Shorten it."));
            return None;
        }
        Some(text.to_owned())
    }

    fn flag(&mut self, object: &Object<'_>, key: &str, default: bool) -> bool {
        object.get(key).and_then(|(at, value)| self.boolean(&at, value)).unwrap_or(default)
    }

    fn boolean(&mut self, at: &Pointer, value: &Value) -> Option<bool> {
        let found = value.as_bool();
        if found.is_none() {
            self.wrong_type(at, "true or false", value);
        }
        found
    }

    fn string<'v>(&mut self, at: &Pointer, value: &'v Value) -> Option<&'v str> {
        let found = value.as_str();
        if found.is_none() {
            self.wrong_type(at, "a string", value);
        }
        found
    }

    fn array<'v>(&mut self, at: &Pointer, value: &'v Value) -> Option<&'v [Value]> {
        let found = value.as_array().map(Vec::as_slice);
        if found.is_none() {
            self.wrong_type(at, "an array", value);
        }
        found
    }

    fn object<'v>(&mut self, at: Pointer, value: &'v Value) -> Option<Object<'v>> {
        match value.as_object() {
            Some(members) => Some(Object { at, members }),
            None => {
                self.wrong_type(&at, "an object", value);
                None
            }
        }
    }
}

/// Keys, and what to say.
impl Parser<'_> {
    fn required<'v>(&mut self, object: &Object<'v>, key: &str) -> Option<(Pointer, &'v Value)> {
        let found = object.get(key);
        if found.is_none() {
            let message = format!("{} has no {key:?}.", object.at.dotted());
            self.say(&object.at, Code::MissingKey, message, hint("Add it."));
        }
        found
    }

    fn known_keys(&mut self, object: &Object<'_>, known: &[&str]) {
        for key in object.members.keys().filter(|key| !known.contains(&key.as_str())) {
            let near = self
                .diagnostics
                .suggest(key, known.iter().copied().filter(|candidate| !object.members.contains_key(*candidate)));
            self.say(
                &object.at.key(key),
                Code::UnknownKey,
                format!("{} has an unknown key {}.", object.at.dotted(), quoted(key)),
                meant(near).or_else(|| Some(format!("The keys here are {}.", known.join(", ")))),
            );
        }
    }

    /// A key that may be written in an older way, with a word about it when it is.
    fn spelled<'v>(&mut self, object: &Object<'v>, spellings: Spellings) -> Option<(Pointer, &'v Value)> {
        let found = self.either(object, spellings);
        let (current, older) = spellings;
        if !object.members.contains_key(current) && object.members.contains_key(older) {
            self.say(
                &object.at.key(older),
                Code::OlderSpelling,
                format!("{older:?} is an older spelling of {current:?}."),
                Some(format!("It works; {current:?} is the name to use.")),
            );
        }
        found
    }

    /// A key that may be written in two ways, but not in both at once.
    fn either<'v>(&mut self, object: &Object<'v>, (one, other): Spellings) -> Option<(Pointer, &'v Value)> {
        if object.members.contains_key(one) && object.members.contains_key(other) {
            let message = format!("{} has both {one:?} and {other:?}, which are one key.", object.at.dotted());
            self.say(&object.at.key(other), Code::BothSpellings, message, Some(format!("Keep only {one:?}.")));
        }
        object.get(one).or_else(|| object.get(other))
    }

    fn wrong_type(&mut self, at: &Pointer, wanted: &str, value: &Value) {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        let way_out = match value {
            Value::Null => Some("Leave the key out to get its default.".to_owned()),
            Value::Number(number) if wanted == "a string" => Some(format!("Put it in quotes: \"{number}\".")),
            _ => None,
        };
        self.say(at, Code::WrongType, format!("{} must be {wanted}, not {found}.", at.dotted()), way_out);
    }

    fn say(&mut self, at: &Pointer, code: Code, message: String, hint: Option<String>) {
        self.diagnostics.manifest(at, code, message, hint);
    }
}

fn hint(text: &str) -> Option<String> {
    Some(text.to_owned())
}

pub(super) fn meant(near: Option<&str>) -> Option<String> {
    near.map(|near| format!("Did you mean {}?", quoted(near)))
}

pub(super) fn meant_or(near: Option<&str>, otherwise: &str) -> Option<String> {
    meant(near).or_else(|| hint(otherwise))
}

/// The value when it is a number without a fraction, as JSON Schema understands an integer: `1000.0` is one.
fn whole_number(value: &Value) -> Option<f64> {
    value.as_number().and_then(serde_json::Number::as_f64).filter(|number| number.fract() == 0.0)
}

fn is_field_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.len() <= MAX_TEXT
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_reserved_variable(name: &str) -> bool {
    RESERVED_ENV.contains(&name) || RESERVED_ENV_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Characters that XML, and so a workbook, cannot hold.
fn is_not_xml(c: char) -> bool {
    c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Whether `path` is `folder/name.py`, or deeper when `nested`. No part begins with a dot: such files are left out of
/// a package.
fn is_script_path(path: &str, folder: &str, nested: bool) -> bool {
    let Some(inner) = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) else {
        return false;
    };
    (nested || !inner.contains('/'))
        && inner.ends_with(".py")
        && inner.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
        && !inner.contains(|c: char| c == '\\' || c.is_control())
}

/// Whether the text is a version after <https://semver.org>.
fn is_semver(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
    let is_number = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let is_identifier =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let is_pre =
        |part: &str| is_identifier(part) && (is_number(part) || part.bytes().any(|byte| !byte.is_ascii_digit()));
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.is_none_or(|pre| pre.split('.').all(is_pre))
        && build.is_none_or(|build| build.split('.').all(is_identifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semantic_versions_are_told_from_others() {
        for version in ["0.0.0", "1.4.0", "1.0.0-alpha.1", "1.0.0-0.3.7", "1.0.0+20130313144700", "1.0.0-x-y-z.-+a.0"] {
            assert!(is_semver(version), "{version}");
        }
        for version in
            ["", "1", "1.2", "1.2.3.4", "01.2.3", "v1.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "1.2.-3", "1.2.3 "]
        {
            assert!(!is_semver(version), "{version}");
        }
    }

    #[test]
    fn script_paths_stay_in_their_folder() {
        for path in ["hooks/a.py", "hooks/sub/a.py", "hooks/a b.py"] {
            assert!(is_script_path(path, "hooks", true), "{path}");
        }
        for path in [
            "hooks/../a.py", "hooks/.a.py", "hooks/a.txt", "hooks/", "hooks//a.py", "/hooks/a.py", "hooksa.py",
            "columns/a.py", "hooks\\a.py", "hooks/.py", "hooks/a\n.py",
        ] {
            assert!(!is_script_path(path, "hooks", true), "{path}");
        }
        assert!(is_script_path("columns/a.py", "columns", false));
        assert!(!is_script_path("columns/sub/a.py", "columns", false));
    }
}
