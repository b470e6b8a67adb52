//! Every rule of the manifest, one test each.

use ade::packages::{Caps, Code, Diagnostic, Level, PackageCaps, Stage, WriterMode, validate};
use serde_json::{Value, json};

use crate::support::{
    CAPS, Entry, Place, SCRIPTS, full_manifest, least_manifest, raw_zip, validate_text, validate_value,
};

/// What is said about [`full_manifest`] after a change, scripts that the change left unused aside.
fn after(change: impl FnOnce(&mut Value)) -> Vec<Diagnostic> {
    let mut manifest = full_manifest();
    change(&mut manifest);
    let report = validate_value(&manifest);
    assert_eq!(report.is_ok(), report.counts.errors == 0);
    let is_kept = |diagnostic: &Diagnostic| diagnostic.code != Code::ScriptUnused;
    report.diagnostics.into_iter().filter(is_kept).collect()
}

/// The one thing that is said after setting the value at `pointer`; it must be about `about`.
fn said_of(pointer: &str, value: Value, about: &str) -> (Code, String) {
    let said = after(|manifest| set(manifest, pointer, value));
    let [only] = said.as_slice() else { panic!("{said:#?}") };
    assert_eq!(only.pointer.as_deref(), Some(about), "{only:?}");
    assert!(only.line.is_some() && only.level == only.code.level(), "{only:?}");
    (only.code, format!("{} {}", only.message, only.hint.as_deref().unwrap_or_default()))
}

fn said(pointer: &str, value: Value) -> (Code, String) {
    said_of(pointer, value, pointer)
}

fn accepted(pointer: &str, value: Value) {
    let said = after(|manifest| set(manifest, pointer, value.clone()));
    assert!(said.is_empty(), "{pointer} = {value}: {said:#?}");
}

/// Sets a member, which may be a new one, or an element.
pub fn set(manifest: &mut Value, pointer: &str, value: Value) {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    match manifest.pointer_mut(parent).unwrap() {
        Value::Object(members) => drop(members.insert(last.to_owned(), value)),
        Value::Array(values) => values[last.parse::<usize>().unwrap()] = value,
        other => panic!("{other} has no members"),
    }
}

fn remove(manifest: &mut Value, pointer: &str) {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    manifest.pointer_mut(parent).unwrap().as_object_mut().unwrap().shift_remove(last).unwrap();
}

#[test]
fn a_manifest_with_every_key_is_read_as_it_says() {
    let report = validate_value(&full_manifest());
    assert_eq!(report.diagnostics, []);
    let manifest = report.manifest.unwrap();
    assert_eq!(manifest.info.title, "Members");
    assert_eq!(manifest.info.description.as_deref(), Some("Member rosters"));
    assert_eq!(manifest.env.get("LOCALE"), Some("de_DE"));
    assert_eq!(manifest.defaults.timeout_ms, Some(120_000));
    assert_eq!(manifest.defaults.memory_mb, Some(256));
    assert!(manifest.defaults.runtime_network_access);
    assert_eq!(manifest.defaults.mapping_score_threshold, Some(0.35));
    assert_eq!(manifest.writer.mode, WriterMode::InMemory);
    assert!(!manifest.writer.append_unmapped_columns);
    assert_eq!(manifest.writer.unmapped_prefix, "x_");
    assert_eq!(manifest.writer.output_sheet, "Members");
    let stages: Vec<Stage> = manifest.hooks.keys().copied().collect();
    assert_eq!(stages, [Stage::OnActivate, Stage::OnJobStart, Stage::OnAfterExtract, Stage::OnJobEnd]);
    assert_eq!(manifest.hooks[&Stage::OnJobStart][0].script, "hooks/start.py");
    assert!(!manifest.hooks[&Stage::OnJobStart][0].enabled);
    let fields: Vec<&str> = manifest.columns.iter().map(|column| column.field.as_str()).collect();
    assert_eq!(fields, ["member_id", "email"]);
    assert_eq!(manifest.columns[0].synonyms, ["ID", "No."]);
    assert_eq!(manifest.columns[0].allowed, [json!("1"), json!(2), json!(null)]);
    assert!(manifest.columns[0].required && !manifest.columns[1].required);
}

#[test]
fn every_default_may_be_left_out() {
    let report = validate_value(&least_manifest());
    let manifest = report.manifest.unwrap();
    assert_eq!(manifest.writer.mode, WriterMode::RowStreaming);
    assert!(manifest.writer.append_unmapped_columns);
    assert_eq!(manifest.writer.unmapped_prefix, "raw_");
    assert_eq!(manifest.writer.output_sheet, "Normalized");
    assert!(!manifest.defaults.runtime_network_access);
    assert!(manifest.hooks.is_empty() && manifest.env.iter().len() == 0);
    assert!(manifest.columns[0].enabled && manifest.columns[0].script.is_none());
    let caps = |timeout_ms, memory_mb| manifest.limits(&Caps { timeout_ms, memory_mb });
    assert_eq!(caps(9_000, 2_048).memory_mb, 512);
    assert_eq!(caps(9_000, 2_048).timeout_ms, 9_000);
    // A default that the instance does not grant is no fault of the manifest.
    assert_eq!(caps(9_000, 128).memory_mb, 128);
}

#[test]
fn required_keys_are_missed_where_they_belong() {
    for (pointer, parent) in [
        ("/config_script_api_version", ""),
        ("/info", ""),
        ("/columns", ""),
        ("/info/schema", "/info"),
        ("/info/title", "/info"),
        ("/info/version", "/info"),
        ("/columns/order", "/columns"),
        ("/columns/meta", "/columns"),
        ("/columns/meta/email/label", "/columns/meta/email"),
        ("/hooks/on_activate/0/script", "/hooks/on_activate/0"),
    ] {
        let said = after(|manifest| remove(manifest, pointer));
        assert_eq!(said.len(), 1, "{said:#?}");
        assert_eq!((said[0].code, said[0].pointer.as_deref()), (Code::MissingKey, Some(parent)));
        let key = pointer.rsplit_once('/').unwrap().1;
        assert!(said[0].message.contains(&format!("{key:?}")), "{}", said[0].message);
    }
}

#[test]
fn unknown_keys_are_errors_that_name_the_nearest_known_key() {
    for (pointer, near) in [
        ("/colums", None),
        ("/info/descripton", None),
        ("/engine/defaults/timeout", None),
        ("/engine/writer/Output-Sheet", None),
        ("/hooks/after_saving", None),
        ("/hooks/on_activate/0/skript", None),
        ("/columns/ordr", None),
        ("/columns/meta/email/synonims", Some("synonyms")),
        ("/columns/meta/email/reqired", Some("required")),
    ] {
        let (code, text) = said(pointer, json!(1));
        assert_eq!(code, Code::UnknownKey);
        match near {
            Some(near) => assert!(text.contains(&format!("Did you mean {near:?}?")), "{text}"),
            // The nearest key is there already, or none is near: all keys are named.
            None => assert!(text.contains("The keys here are"), "{text}"),
        }
    }
}

#[test]
fn values_of_another_type_say_what_is_wanted() {
    for (pointer, value, wanted) in [
        ("/info/title", json!(1), "a string"),
        ("/config_script_api_version", json!(1), "Put it in quotes: \"1\""),
        ("/info/description", json!(null), "Leave the key out"),
        ("/engine", json!([]), "an object"),
        ("/engine/defaults/timeout_ms", json!("2000"), "a whole number"),
        ("/engine/defaults/timeout_ms", json!(2000.5), "a whole number"),
        ("/engine/defaults/mapping_score_threshold", json!("1"), "a number"),
        ("/engine/defaults/runtime_network_access", json!("yes"), "true or false"),
        ("/hooks/on_activate", json!({}), "an array"),
        ("/hooks/on_activate/0", json!("check.py"), "an object"),
        ("/columns/meta/email", json!("E-mail"), "an object"),
        ("/columns/meta/email/synonyms", json!(["a", 1]), "a string"),
        ("/columns/meta/email/allowed", json!("a"), "an array"),
        ("/env/LOCALE", json!(1), "a string"),
    ] {
        let about = if pointer.ends_with("synonyms") { format!("{pointer}/1") } else { pointer.to_owned() };
        let (code, text) = said_of(pointer, value, &about);
        assert_eq!(code, Code::WrongType);
        assert!(text.contains(wanted), "{text}");
    }
    assert_eq!(validate_text(b"[]").diagnostics[0].code, Code::WrongType);
}

#[test]
fn a_whole_number_may_be_written_with_a_point() {
    accepted("/engine/defaults/timeout_ms", json!(1000.0));
}

#[test]
fn older_spellings_work_and_are_mentioned() {
    for (older, current) in [
        ("/engine/defaults/allow_net", "/engine/defaults/runtime_network_access"),
        ("/engine/defaults/min_mapping_confidence", "/engine/defaults/mapping_score_threshold"),
        ("/hooks/on_prepare", "/hooks/on_activate"),
    ] {
        let mut manifest = full_manifest();
        let value = manifest.pointer(current).unwrap().clone();
        remove(&mut manifest, current);
        set(&mut manifest, older, value.clone());
        let report = validate_value(&manifest);
        let [info] = report.diagnostics.as_slice() else { panic!("{:#?}", report.diagnostics) };
        assert_eq!((info.code, info.level), (Code::OlderSpelling, Level::Info));
        assert_eq!(info.pointer.as_deref(), Some(older));
        assert_eq!(report.manifest, validate_value(&full_manifest()).manifest);

        set(&mut manifest, current, value);
        let both = validate_value(&manifest);
        assert_eq!(both.diagnostics[0].code, Code::BothSpellings);
        assert_eq!(both.diagnostics[0].pointer.as_deref(), Some(older));
    }
}

#[test]
fn after_transform_is_another_name_of_on_after_extract() {
    let mut manifest = full_manifest();
    let value = manifest["hooks"]["on_after_extract"].clone();
    remove(&mut manifest, "/hooks/on_after_extract");
    set(&mut manifest, "/hooks/after_transform", value);
    let report = validate_value(&manifest);
    assert_eq!(report.diagnostics, []);
    assert!(report.manifest.unwrap().hooks.contains_key(&Stage::OnAfterExtract));
    let (code, _) = said("/hooks/after_transform", json!([]));
    assert_eq!(code, Code::BothSpellings);
}

#[test]
fn other_schemas_and_script_apis_are_refused() {
    assert_eq!(said("/info/schema", json!("ade.manifest/v2.0")).0, Code::UnsupportedSchema);
    assert_eq!(said("/config_script_api_version", json!("2")).0, Code::UnsupportedApiVersion);
}

#[test]
fn texts_have_lengths_in_characters() {
    for (pointer, most) in [
        ("/info/title", 255),
        ("/engine/writer/unmapped_prefix", 64),
        ("/columns/meta/email/label", 255),
        ("/columns/meta/email/type_hint", 64),
        ("/columns/meta/member_id/synonyms/0", 255),
    ] {
        accepted(pointer, json!("\u{e9}".repeat(most)));
        let (code, text) = said(pointer, json!("\u{e9}".repeat(most + 1)));
        assert_eq!(code, Code::TextTooLong);
        assert!(text.contains(&most.to_string()) && text.contains(&(most + 1).to_string()), "{text}");
    }
    for pointer in ["/info/title", "/info/version", "/columns/meta/email/label", "/columns/meta/member_id/synonyms/0"] {
        let said = after(|manifest| set(manifest, pointer, json!("")));
        assert_eq!(said[0].code, Code::TextEmpty, "{pointer}");
    }
    accepted("/engine/writer/unmapped_prefix", json!(""));
}

#[test]
fn a_version_that_is_not_semantic_is_a_warning() {
    let (code, _) = said("/info/version", json!("2025-11"));
    assert_eq!((code, code.level()), (Code::VersionNotSemver, Level::Warning));
}

#[test]
fn limits_below_the_least_are_errors() {
    for (pointer, least) in [
        ("/engine/defaults/timeout_ms", 1_000),
        ("/engine/defaults/memory_mb", 64),
        ("/engine/defaults/mapping_score_threshold", 0),
    ] {
        accepted(pointer, json!(least));
        let (code, text) = said(pointer, json!(least - 1));
        assert_eq!(code, Code::NumberTooSmall);
        assert!(text.contains(&(least - 1).to_string()) && text.contains(&least.to_string()), "{text}");
    }
}

#[test]
fn a50_limits_above_the_instances_caps_are_errors_with_both_numbers() {
    for (pointer, cap) in
        [("/engine/defaults/timeout_ms", CAPS.timeout_ms), ("/engine/defaults/memory_mb", CAPS.memory_mb)]
    {
        accepted(pointer, json!(cap));
        for above in [json!(cap + 1), json!(u64::MAX), json!(1e300)] {
            let (code, text) = said(pointer, above.clone());
            assert_eq!(code, Code::LimitAboveCap);
            assert!(text.contains(&cap.to_string()) && text.contains(&above.to_string()), "{text}");
        }
    }
}

#[test]
fn variables_have_legal_names_that_the_runtime_does_not_use() {
    for name in ["1A", "A-B", "", "A B", "\u{c4}", "A="] {
        assert_eq!(said(&format!("/env/{name}"), json!("x")).0, Code::EnvNameInvalid, "{name}");
    }
    for name in ["PATH", "HOME", "TMPDIR", "LANG", "TZ", "LD_PRELOAD", "PYTHONPATH", "PYTHON", "ADE_JOB"] {
        assert_eq!(said(&format!("/env/{name}"), json!("x")).0, Code::EnvNameReserved, "{name}");
    }
    for name in ["path", "PATHS", "LANGUAGE", "_", "a1", "MY_ADE_X"] {
        accepted(&format!("/env/{name}"), json!("x"));
    }
}

#[test]
fn values_of_variables_are_bounded_and_have_no_nul() {
    accepted("/env/X", json!("\u{e9}".repeat(32_767)));
    assert_eq!(said("/env/X", json!("x".repeat(32_768))).0, Code::EnvValueInvalid);
    assert_eq!(said("/env/X", json!("a\0b")).0, Code::EnvValueInvalid);
}

#[test]
fn values_of_variables_are_never_shown() {
    let mut manifest = full_manifest();
    set(&mut manifest, "/env/TOKEN", json!("hunter2"));
    let parsed = validate_value(&manifest).manifest.unwrap();
    assert!(format!("{parsed:?}").contains("TOKEN"));
    assert!(!format!("{parsed:?}").contains("hunter2"));
    let (_, text) = said("/env/ADE_TOKEN", json!("hunter2"));
    assert!(!text.contains("hunter2"));
}

#[test]
fn the_writers_mode_is_one_of_two() {
    let (code, text) = said("/engine/writer/mode", json!("row-streaming"));
    assert_eq!(code, Code::InvalidChoice);
    assert!(text.contains("Did you mean \"row_streaming\"?"), "{text}");
}

#[test]
fn the_output_sheet_has_a_name_that_excel_allows() {
    for name in
        ["", "a/b", "a[b", "a]b", "a:b", "a*b", "a?b", "a\\b", "'a", "a'", "History", "hISTORY", "a\tb", "\u{ffff}"]
    {
        assert_eq!(said("/engine/writer/output_sheet", json!(name)).0, Code::OutputSheetInvalid, "{name:?}");
    }
    for name in ["a".repeat(32), "\u{1f600}".repeat(16)] {
        let (code, text) = said("/engine/writer/output_sheet", json!(name));
        assert_eq!(code, Code::OutputSheetInvalid);
        assert!(text.contains("32") && text.contains("31"), "{text}");
    }
    for name in ["a".repeat(31), "Gr\u{f6}\u{df}en & mehr".to_owned(), "it's".to_owned(), "Historys".to_owned()] {
        accepted("/engine/writer/output_sheet", json!(name));
    }
}

#[test]
fn field_ids_have_one_form() {
    for field in ["A", "1a", "_a", "a-b", "a b", "", "\u{e9}", &"a".repeat(256)] {
        let said = after(|manifest| set(manifest, "/columns/order/1", json!(field)));
        assert_eq!(said[0].code, Code::FieldIdInvalid, "{field:?}");
        assert_eq!(said[0].pointer.as_deref(), Some("/columns/order/1"));
        assert_eq!(
            said_of(&format!("/columns/meta/{field}"), json!({"label": "X"}), &format!("/columns/meta/{field}")).0,
            Code::FieldIdInvalid
        );
    }
}

#[test]
fn a_field_named_self_is_a_warning() {
    let said = after(|manifest| {
        set(manifest, "/columns/order/1", json!("self"));
        set(manifest, "/columns/meta", json!({"self": {"label": "S"}, "member_id": {"label": "M"}}));
    });
    assert!(said.iter().all(|diagnostic| diagnostic.code == Code::FieldIdReserved), "{said:#?}");
    assert!(!said.is_empty());
}

#[test]
fn order_and_meta_hold_the_same_fields_each_once() {
    let (code, text) = said_of("/columns/order", json!(["member_id", "email", "email"]), "/columns/order/2");
    assert_eq!(code, Code::FieldDuplicate);
    assert!(text.contains("\"email\""), "{text}");

    let said = after(|manifest| set(manifest, "/columns/order/1", json!("e_mail")));
    let codes: Vec<_> = said.iter().map(|d| (d.code, d.pointer.as_deref().unwrap())).collect();
    assert_eq!(codes, [(Code::FieldWithoutMeta, "/columns/order/1"), (Code::FieldWithoutOrder, "/columns/meta/email")]);
    assert_eq!(said[0].hint.as_deref(), Some("Did you mean \"email\"?"));
    assert!(said[1].message.contains("\"email\""));
}

#[test]
fn there_are_at_most_as_many_fields_as_excel_has_columns() {
    let fields: Vec<String> = (0..16_385).map(|n| format!("f{n}")).collect();
    let said = after(|manifest| set(manifest, "/columns/order", json!(fields)));
    assert_eq!(said[0].code, Code::TooManyFields);
    assert!(said[0].message.contains("16385") && said[0].message.contains("16384"));
}

#[test]
fn no_fields_and_shared_labels_are_warnings() {
    let said = after(|manifest| set(manifest, "/columns", json!({"order": [], "meta": {}})));
    assert_eq!((said.len(), said[0].code), (1, Code::NoFields));
    let label = "/columns/meta/email/label";
    assert_eq!(self::said(label, json!(" member id ")).0, Code::LabelDuplicate);
}

#[test]
fn labels_of_disabled_fields_may_be_shared() {
    accepted("/columns/meta/email", json!({"label": "Member ID", "enabled": false}));
}

#[test]
fn script_paths_stay_in_their_folder() {
    for path in [
        "member_id.py", "hooks/check.py", "columns/../hooks/check.py", "columns/sub/a.py", "columns/.a.py",
        "columns/a.txt", "/columns/a.py", "columns\\a.py", "",
    ] {
        assert_eq!(said("/columns/meta/email/script", json!(path)).0, Code::ScriptPathInvalid, "{path}");
    }
    for path in ["columns/member_id.py", "../check.py", "hooks/../check.py", "hooks//check.py", "check", "hooks/", ""] {
        assert_eq!(said("/hooks/on_activate/0/script", json!(path)).0, Code::ScriptPathInvalid, "{path}");
    }
}

#[test]
fn scripts_that_are_not_in_the_package_are_errors_that_name_the_nearest() {
    let (code, text) = said("/hooks/on_activate/0/script", json!("chekc.py"));
    assert_eq!(code, Code::ScriptMissing);
    assert!(text.contains("hooks/chekc.py") && text.contains("Did you mean \"hooks/check.py\"?"), "{text}");
    let (code, text) = said("/columns/meta/email/script", json!("columns/email.py"));
    assert_eq!(code, Code::ScriptMissing);
    assert!(text.contains("Add the file"), "{text}");
}

#[test]
fn column_scripts_that_no_field_uses_are_warnings() {
    let manifest = serde_json::to_vec(&least_manifest()).unwrap();
    let zip = raw_zip(&[
        Entry::new("manifest.json", &manifest),
        Entry::new("columns/a.py", b""),
        Entry::new("columns/_shared.py", b""),
        Entry::new("columns/__init__.py", b""),
        Entry::new("columns/notes.txt", b""),
        Entry::new("columns/sub/b.py", b""),
        Entry::new("vendor/c.py", b""),
    ]);
    let report = validate(&Place::new().open_zip(&zip, &PackageCaps::default()).unwrap(), &CAPS);
    let [warning] = report.diagnostics.as_slice() else { panic!("{:#?}", report.diagnostics) };
    assert_eq!((warning.code, warning.path.as_str()), (Code::ScriptUnused, "columns/a.py"));
    assert!(report.is_ok());
}

#[test]
fn a_hook_listed_twice_for_a_stage_is_a_warning() {
    let twice = json!([{"script": "check.py"}, {"script": "hooks/check.py"}]);
    let (code, _) = said_of("/hooks/on_activate", twice, "/hooks/on_activate/1/script");
    assert_eq!(code, Code::HookDuplicate);
}

#[test]
fn repeated_keys_are_errors_on_the_line_of_the_last() {
    let text = serde_json::to_string_pretty(&full_manifest()).unwrap();
    let text = text.replacen("\"title\": \"Members\",", "\"title\": \"A\",\n\"title\": \"Members\",", 1);
    let report = validate_text(text.as_bytes());
    let [error] = report.diagnostics.as_slice() else { panic!("{:#?}", report.diagnostics) };
    assert_eq!((error.code, error.pointer.as_deref(), error.line), (Code::DuplicateKey, Some("/info/title"), Some(7)));
}

#[test]
fn files_that_are_not_json_say_where() {
    let only = |text: &[u8]| {
        let report = validate_text(text);
        assert!(!report.is_ok());
        report.diagnostics.into_iter().find(|diagnostic| diagnostic.code != Code::ScriptUnused).unwrap()
    };
    let syntax = only(b"{\n  \"info\": {,}\n}");
    assert_eq!((syntax.code, syntax.line), (Code::ManifestSyntax, Some(2)));
    assert!(syntax.message.contains("line 2, column 12"), "{}", syntax.message);
    assert_eq!(only(b"").code, Code::ManifestSyntax);
    assert_eq!(only(b"{\n\"\xff\": 1}").code, Code::ManifestNotUtf8);
    assert_eq!(only("[".repeat(500_000).as_bytes()).code, Code::ManifestTooDeep);
    assert_eq!(only(&vec![b' '; 1024 * 1024 + 1]).code, Code::ManifestTooLarge);
}

#[test]
fn a_byte_order_mark_is_a_warning() {
    let mut text = b"\xef\xbb\xbf".to_vec();
    text.extend(serde_json::to_vec(&full_manifest()).unwrap());
    let report = validate_text(&text);
    assert_eq!((report.diagnostics.len(), report.diagnostics[0].code), (1, Code::ManifestBom));
    assert!(report.is_ok());
}

#[test]
fn all_faults_are_reported_at_once_errors_first_and_with_lines() {
    let text = r#"{
  "config_script_api_version": "1",
  "info": {
    "schema": "ade.manifest/v1.0",
    "title": "",
    "version": "one"
  },
  "engine": {"defaults": {"timeout_ms": 5,
                          "memory_mb": 99999}},
  "columns": {"order": ["a"], "meta": {"a": {"lable": "A"}}}
}"#;
    let report = validate_text(text.as_bytes());
    let said: Vec<_> =
        report.diagnostics.iter().filter(|d| d.code != Code::ScriptUnused).map(|d| (d.code, d.line.unwrap())).collect();
    assert_eq!(
        said,
        [
            (Code::TextEmpty, 5),
            (Code::NumberTooSmall, 8),
            (Code::LimitAboveCap, 9),
            (Code::UnknownKey, 10),
            (Code::MissingKey, 10),
            (Code::VersionNotSemver, 6),
        ]
    );
    assert_eq!(report.counts.errors, 5);
    assert!(report.manifest.is_none());
}

#[test]
fn a_hostile_manifest_gets_a_bounded_answer_quickly() {
    let mut manifest = full_manifest();
    for n in 0..40_000 {
        set(&mut manifest, &format!("/columns/meta/email/\u{1b}[31m{n}"), json!(1));
    }
    let started = std::time::Instant::now();
    let report = validate_text(&serde_json::to_vec(&manifest).unwrap());
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    assert_eq!(report.counts.errors, 40_000);
    assert_eq!(report.diagnostics.len(), 201);
    assert!(!serde_json::to_string(&report.diagnostics).unwrap().contains("\\u001b"));
}

#[test]
fn diagnostics_are_json_as_documented() {
    let report = validate_value(&json!({}));
    let value = serde_json::to_value(&report.diagnostics[0]).unwrap();
    assert_eq!(
        value,
        json!({
            "level": "error", "code": "missing_key", "path": "manifest.json", "pointer": "", "line": 1,
            "message": "manifest.json has no \"config_script_api_version\".", "hint": "Add it.",
        })
    );
}

#[test]
fn the_fixture_names_exactly_the_scripts_it_comes_with() {
    for script in SCRIPTS {
        let text = serde_json::to_string(&full_manifest()).unwrap();
        assert!(text.contains(script.rsplit_once('/').unwrap().1), "{script}");
    }
}
