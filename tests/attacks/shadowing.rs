//! Attack 65: packages that bring modules with the names of the standard library or the runner.

use crate::support::{Package, Run, Upload, run};

const EVIL: &str = "print('evil was imported')\nraise RuntimeError('evil')\n";

/// The package's code was not run in place of anyone else's: the job did its work.
#[track_caller]
fn assert_unaffected(run: &Run) {
    if run.status() == "failed" {
        run.assert_failed("package_invalid", &[]);
        return;
    }
    run.assert_succeeded();
    assert!(!run.log().contains(&"evil was imported"), "{:?}", run.log());
    let rows = &run.artifact.as_ref().unwrap()["summary"]["rows_written"];
    assert_eq!(rows.as_u64(), Some(2), "the job did its work");
}

#[test]
fn a65_vendored_modules_cannot_shadow_the_standard_library_or_the_runner() {
    let mut package = Package::attacking(
        "import json, csv, decimal, zipfile, colorsys, wave\nsay('json', json.__file__)\nsay('wave', wave.__file__)",
    );
    for name in [
        "json", "os", "sys", "re", "zipfile", "csv", "decimal", "wave", "datetime", "python_calamine", "sitecustomize",
        "usercustomize", "site", "encodings",
    ] {
        package = package.file(&format!("vendor/{name}.py"), EVIL).file(&format!("{name}.py"), EVIL);
    }
    for name in ["ade_runner", "python_calamine", "collections", "importlib"] {
        package =
            package.file(&format!("vendor/{name}/__init__.py"), EVIL).file(&format!("vendor/{name}/pipeline.py"), EVIL);
    }
    let run = run(&package.file("vendor/evil.pth", "import evil"), &[Upload::names()], &[]);
    assert_unaffected(&run);
    if run.status() == "succeeded" {
        assert!(run.finding("json").starts_with("/usr/lib/") && run.finding("wave").starts_with("/usr/lib/"));
    }
}

#[test]
fn a65_columns_hooks_and_row_types_named_after_modules_are_only_scripts() {
    let column = "def detect_name(**_):\n    return {'scores': {'self': 1.0}}\n";
    let mut package = Package::attacking("import json, string\nsay('json', json.__file__)");
    for name in ["json", "string", "datetime", "calendar"] {
        package = package.column(name, column);
    }
    let run = run(&package, &[Upload::names()], &[]);
    assert_unaffected(&run);
    assert!(run.finding("json").starts_with("/usr/lib/"));
}

#[test]
fn a65_a_package_that_patches_the_runner_in_its_own_process_changes_only_its_own_job() {
    let patch = r#"
    import builtins, json as real
    builtins.open = None
    real.dumps = lambda *a, **k: 'evil'
    os.write = lambda *a: 1 / 0
    sys.modules.clear()
    "#;
    let run = crate::support::run(&Package::attacking(patch), &[Upload::names()], &["--timeout-ms", "10000"]);
    assert_eq!(run.status(), "failed", "{}", run.stdout);
    assert!(
        matches!(
            run.kind(),
            "script_error" | "runner_crashed" | "hook_failed" | "output_invalid" | "protocol_violation"
        ),
        "{}",
        run.stdout
    );
    crate::support::run(&Package::new(), &[Upload::names()], &[]).assert_succeeded();
}
