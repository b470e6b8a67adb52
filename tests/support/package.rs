//! A builder for config packages.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A config package in memory. A new one has a single field `name` (label `Name`) without a script, and succeeds.
#[derive(Debug, Clone)]
pub struct Package {
    manifest: Value,
    files: BTreeMap<String, Vec<u8>>,
}

impl Package {
    /// A package that does nothing but take a column `Name`.
    pub fn new() -> Self {
        let manifest = json!({
            "config_script_api_version": "1",
            "info": {"schema": "ade.manifest/v1.0", "title": "Under test", "version": "1.0.0"},
            "columns": {"order": ["name"], "meta": {"name": {"label": "Name"}}},
        });
        Self { manifest, files: BTreeMap::new() }
    }

    /// A package whose `on_job_start` hook has this body.
    pub fn attacking(body: &str) -> Self {
        Self::new().hook("on_job_start", &function(body))
    }

    /// Adds a hook script to a stage; further ones of the same stage run in the order they were added.
    #[must_use]
    pub fn hook(mut self, stage: &str, source: &str) -> Self {
        let hooks = &mut self.manifest["hooks"];
        if hooks.is_null() {
            *hooks = json!({});
        }
        let scripts = &mut hooks[stage];
        if scripts.is_null() {
            *scripts = json!([]);
        }
        let number = scripts.as_array().map_or(0, Vec::len);
        let path = if number == 0 { format!("hooks/{stage}.py") } else { format!("hooks/{stage}_{}.py", number + 1) };
        scripts.as_array_mut().unwrap().push(json!({"script": path}));
        self.file(&path, source)
    }

    /// Adds the script of a field; a field that is not there yet comes last, its id as its label.
    #[must_use]
    pub fn column(mut self, field: &str, source: &str) -> Self {
        let path = format!("columns/{field}.py");
        let columns = &mut self.manifest["columns"];
        if columns["meta"].get(field).is_none() {
            columns["meta"][field] = json!({"label": field});
            columns["order"].as_array_mut().unwrap().push(json!(field));
        }
        columns["meta"][field]["script"] = json!(path);
        self.file(&path, source)
    }

    /// Adds a script of row detectors.
    #[must_use]
    pub fn row_type(self, name: &str, source: &str) -> Self {
        self.file(&format!("row_types/{name}.py"), source)
    }

    /// Adds or replaces any file.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.insert(path.to_owned(), content.as_ref().to_owned());
        self
    }

    /// Has the manifest ask for network.
    #[must_use]
    pub fn asking_for_network(self) -> Self {
        self.manifest(json!({"engine": {"defaults": {"runtime_network_access": true}}}))
    }

    /// Changes the manifest by a merge patch (RFC 7396): objects are merged, null removes.
    #[must_use]
    pub fn manifest(mut self, patch: Value) -> Self {
        merge(&mut self.manifest, patch);
        self
    }

    /// Everything in it, the manifest included.
    pub fn entries(&self) -> BTreeMap<String, Vec<u8>> {
        let mut entries = self.files.clone();
        entries.entry("manifest.json".into()).or_insert_with(|| self.manifest.to_string().into_bytes());
        entries
    }

    /// Writes the package as a folder.
    pub fn write_to(&self, folder: &Path) {
        for (path, content) in self.entries() {
            let target = folder.join(path);
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::write(target, content).unwrap();
        }
    }

    /// The package as an honest zip.
    pub fn zip(&self) -> Vec<u8> {
        let entries = self.entries();
        let entries: Vec<_> = entries.iter().map(|(path, content)| super::zips::Entry::file(path, content)).collect();
        super::zips::archive(&entries)
    }
}

impl Default for Package {
    fn default() -> Self {
        Self::new()
    }
}

/// The source of a script with one function `run` of this body, whatever its indentation, after the helpers of
/// `probe.py`: `attempt(name, function)` prints `name: allowed`, or `name: EPERM` and the like.
pub fn function(body: &str) -> String {
    let lines: Vec<&str> = body.lines().collect();
    let indent = lines
        .iter()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.len() - line.trim_start().len())
        .min()
        .unwrap_or(0);
    let mut source = format!("{}\n\ndef run(**_):\n", include_str!("probe.py"));
    for line in lines {
        source.push_str("    ");
        source.push_str(line.get(indent..).unwrap_or(""));
        source.push('\n');
    }
    source.push_str("    return None\n");
    source
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let object = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            object.remove(&key);
        } else {
            merge(object.entry(key).or_insert(Value::Null), value);
        }
    }
}
