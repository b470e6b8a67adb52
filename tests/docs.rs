//! The tables in the docs say what the code does, no more and no less.

use std::collections::{BTreeMap, BTreeSet};

/// The code spans in column `column` of the tables of a page whose header row begins with `header`; several in a cell are
/// several spellings.
fn spans(page: &str, header: &str, column: usize) -> BTreeSet<String> {
    let text = std::fs::read_to_string(format!("{}/docs/{page}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with(&format!("| {header} |")) {
            inside = true;
        } else if !line.starts_with('|') {
            inside = false;
        } else if inside {
            let cell = line.split(" | ").nth(column).unwrap_or_default();
            for span in cell.split('`').skip(1).step_by(2) {
                assert!(found.insert(span.to_owned()), "{span} stands twice in docs/{page}");
            }
        }
    }
    assert!(!found.is_empty(), "no table with the header {header:?} in docs/{page}");
    found
}

#[test]
fn every_event_is_in_the_catalogue_and_every_entry_is_an_event() {
    let code: BTreeSet<String> = ade::events::EVENTS.iter().map(|event| event.name.to_owned()).collect();
    assert_eq!(spans("developers/events.md", "event", 0), code);
}

#[test]
fn every_error_kind_is_in_the_catalogue_and_every_entry_is_a_kind() {
    let code: BTreeSet<String> = ade::sandbox::FailureKind::ALL.iter().map(|kind| kind.as_str().to_owned()).collect();
    assert_eq!(spans("developers/error-kinds.md", "kind", 0), code);
}

#[test]
fn every_action_of_the_audit_is_documented() {
    let code: BTreeSet<String> = ade::store::Action::ALL.iter().map(|action| action.as_str().to_owned()).collect();
    assert_eq!(spans("operations/audit.md", "action", 0), code);
}

/// What the table of routes in the audit's page says: the action, or none with a reason.
fn audited() -> BTreeMap<String, Option<String>> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations/audit.md")).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| route |")).skip(2);
    let mut said = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").map(str::trim).collect();
        let [route, entry] = cells[..] else { panic!("{row}") };
        let action = entry.strip_prefix('`').and_then(|entry| entry.strip_suffix('`'));
        assert!(action.is_some() || entry.strip_prefix("none: ").is_some_and(|why| why.len() > 10), "a reason: {row}");
        assert!(said.insert(route.trim_matches('`').to_owned(), action.map(str::to_owned)).is_none(), "twice: {row}");
    }
    said
}

#[test]
fn every_route_that_may_change_something_is_audited_or_says_why_not() {
    let document: serde_json::Value = serde_json::from_str(&ade::api::openapi::published()).unwrap();
    let mut routes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            if ["post", "put", "patch", "delete"].contains(&method.as_str()) {
                routes.insert(format!("{} {}", method.to_uppercase(), path.strip_prefix("/api/v1").unwrap()));
            }
        }
    }
    let said = audited();
    assert_eq!(said.keys().cloned().collect::<BTreeSet<_>>(), routes);
    // That each writes the entry is seen in tests/service; here, that there is no action without a route.
    let actions: BTreeSet<String> = ade::store::Action::ALL.iter().map(|action| action.as_str().to_owned()).collect();
    assert_eq!(said.into_values().flatten().collect::<BTreeSet<_>>(), actions);
}

/// The text of a cell as a terminal shows it: links without where they lead.
fn unlinked(cell: &str) -> String {
    let mut parts = cell.trim().split("](");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.split_once(')').unwrap().1);
    }
    text.replace('[', "")
}

#[test]
fn every_error_kind_has_advice_and_it_is_what_the_catalogue_says() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/developers/error-kinds.md")).unwrap();
    for kind in ade::sandbox::FailureKind::ALL {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{kind}` |"))).unwrap();
        let cell = row.trim_end_matches('|').rsplit(" | ").next().unwrap();
        assert_eq!(unlinked(cell), kind.advice(), "{kind}");
        assert!(kind.advice().len() > 10, "{kind}");
    }
}

fn assert_documented(command: &clap::Command, header: &str) {
    let arguments: Vec<_> = command.get_arguments().filter(|argument| argument.get_env().is_some()).collect();
    let variables = arguments.iter().map(|argument| argument.get_env().unwrap().to_str().unwrap().to_owned()).collect();
    let flags = arguments.iter().map(|argument| format!("--{}", argument.get_long().unwrap())).collect();
    assert_eq!(spans("operations/settings.md", header, 0), variables);
    assert_eq!(spans("operations/settings.md", header, 1), flags);
}

#[test]
fn every_setting_is_documented_with_its_variable_and_flag() {
    use ade::settings::{ClientSettings, ServeSettings, Settings};
    use clap::Args;
    assert_documented(&Settings::augment_args(clap::Command::new("ade")), "environment variable");
    assert_documented(&ServeSettings::augment_args(clap::Command::new("ade")), "variable of the service");
    assert_documented(&ClientSettings::augment_args(clap::Command::new("ade")), "variable of clients");
}

#[test]
fn every_metric_is_documented_with_its_type_and_labels() {
    let names: BTreeSet<String> = ade::telemetry::METRICS.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(spans("operations/monitoring.md", "metric", 0), names);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations/monitoring.md")).unwrap();
    for metric in ade::telemetry::METRICS {
        let labels = if metric.labels.is_empty() { "-".to_owned() } else { metric.labels.join(", ") };
        let row = format!("| `{}` | {} | {labels} |", metric.name, metric.kind.as_str());
        assert!(page.contains(&row), "no row begins with {row}");
    }
}

/// The truth table of the network policy, as the documentation has it.
#[test]
fn the_table_of_the_network_policy_is_what_the_program_decides() {
    use ade::network::{Access, Layers, Ruling, Switch, decide};
    let cell = |ruling: Ruling| format!("{} ({})", if ruling.allowed { "yes" } else { "no" }, ruling.by);
    let mut rows = Vec::new();
    for instance in Switch::ALL.iter().copied() {
        for workspace in Access::ALL.iter().copied() {
            for package in Access::ALL.iter().copied() {
                let made = |manifest| {
                    let decision =
                        decide(&Layers { instance, workspace, package, allowed_hosts: Vec::new(), manifest });
                    format!("{} | {}", cell(decision.install), cell(decision.run))
                };
                let set = format!("`{instance}` | `{workspace}` | `{package}`");
                rows.push(format!("| {set} | {} | {} |", made(false), made(true)));
            }
        }
    }
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations/network.md")).unwrap();
    let (_, table) = page.split_once("| switch | workspace | package | install, not asked |").unwrap();
    let shown: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 3 * 4 * 4);
    assert_eq!(shown, rows, "the table should be:\n{}", rows.join("\n"));
}

#[test]
fn every_figure_of_the_benchmark_is_documented_with_its_unit_and_what_is_wanted() {
    let ids: BTreeSet<String> = ade::bench::FIGURES.iter().map(|kind| kind.id.to_owned()).collect();
    assert_eq!(spans("operations/performance.md", "figure", 0), ids);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations/performance.md")).unwrap();
    for kind in ade::bench::FIGURES {
        let wanted = kind.wanted.map_or_else(|| "-".to_owned(), |wanted| wanted.to_string());
        let row = format!("| `{}` | {} | {wanted} | {} |", kind.id, kind.unit, kind.what);
        assert!(page.contains(&row), "there is no row {row}");
    }
}

#[test]
fn every_problem_is_in_the_catalogue_with_its_status() {
    let codes: BTreeSet<String> = ade::api::Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    assert_eq!(spans("developers/problems.md", "code", 0), codes);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/developers/problems.md")).unwrap();
    for code in ade::api::Code::ALL {
        let row = format!("| `{}` | {} |", code.as_str(), code.status().as_u16());
        assert!(page.contains(&row), "no row begins with {row}");
    }
}

#[test]
fn every_refusal_of_egress_is_documented_with_its_status() {
    let codes: BTreeSet<String> = ade::egress::Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    assert_eq!(spans("operations/egress.md", "code", 0), codes);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations/egress.md")).unwrap();
    for code in ade::egress::Code::ALL {
        let row = format!("| `{}` | {} |", code.as_str(), code.status());
        assert!(page.contains(&row), "no row begins with {row}");
    }
}

#[test]
fn the_published_openapi_document_is_the_one_that_is_served() {
    let published = std::fs::read_to_string(format!("{}/docs/openapi.json", env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert!(
        published == ade::api::openapi::published(),
        "docs/openapi.json is stale: cargo run -- openapi > docs/openapi.json"
    );
}

#[test]
fn every_reference_of_the_openapi_document_leads_somewhere() {
    fn references<'a>(value: &'a serde_json::Value, found: &mut BTreeSet<&'a str>) {
        match value {
            serde_json::Value::Object(members) => {
                found.extend(members.get("$ref").and_then(|reference| reference.as_str()));
                members.values().for_each(|value| references(value, found));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document: serde_json::Value = serde_json::from_str(&ade::api::openapi::published()).unwrap();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

/// Names of metrics in a text, as the series that a scrape has, with the labels that are written or matched behind them.
fn series_in(text: &str) -> Vec<(String, Vec<String>)> {
    let named = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut found = Vec::new();
    for (at, _) in text.match_indices("ade_") {
        if text[..at].ends_with(named) {
            continue;
        }
        let name: String = text[at..].chars().take_while(|letter| named(*letter)).collect();
        let selector = text[at + name.len()..].strip_prefix('{').and_then(|rest| rest.split('}').next());
        let labels = selector.unwrap_or_default().split(", ").filter_map(|part| part.split(['=', '!']).next());
        let labels = labels.map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
        found.push((name, labels.collect()));
    }
    found
}

#[test]
fn dashboard_and_alerts_use_metrics_and_labels_that_there_are() {
    let read =
        |name: &str| std::fs::read_to_string(format!("{}/docs/operations/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana-dashboard.json")).unwrap();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        expressions.extend(
            panel["targets"].as_array().unwrap().iter().map(|target| target["expr"].as_str().unwrap().to_owned()),
        );
    }
    let on_the_dashboard: BTreeSet<String> =
        expressions.iter().flat_map(|text| series_in(text)).map(|(name, _)| name).collect();
    expressions.push(read("alerts.yml"));
    for (name, labels) in expressions.iter().flat_map(|text| series_in(text)) {
        let metric = ade::telemetry::METRICS
            .iter()
            .find(|metric| name == metric.name || name == format!("{}_bucket", metric.name));
        let metric = metric.unwrap_or_else(|| panic!("{name} is no metric"));
        for label in labels {
            assert!(label == "job" || metric.labels.contains(&label.as_str()), "{name} has no label {label:?}");
        }
    }
    for metric in ade::telemetry::METRICS {
        let shown = on_the_dashboard.iter().any(|name| name.trim_end_matches("_bucket") == metric.name);
        assert!(shown, "{} is on no panel of the dashboard", metric.name);
    }
}
