//! Who did what: an entry for every change, none without one, and nothing that loses or repeats an entry.

use crate::harness::{Kind, Tenant, World};
use ade::ids::{AuditId, JobId};
use ade::queue::JobState;
use ade::store::{
    Action, Actor, AuditEntry, AuditFilter, InstanceChange, NewKey, QueueState, Role, Submission, WorkspaceChange,
    now_ms,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The whole of what a filter lets through, in parts of `size`.
async fn all(world: &World, filter: &AuditFilter, size: i64) -> Vec<AuditEntry> {
    let mut filter = filter.clone();
    let mut entries = Vec::new();
    loop {
        let part = world.store.audit(&filter, size).await.expect("entries");
        assert!(part.entries.len() <= usize::try_from(size).expect("a size"));
        entries.extend(part.entries);
        match part.rest {
            Some(rest) => filter.before = Some(rest),
            None => break,
        }
    }
    assert!(entries.is_sorted_by(|a, b| a.id > b.id), "newest first, and each once");
    entries
}

fn of(actions: &[Action]) -> AuditFilter {
    AuditFilter { actions: actions.iter().map(|action| action.as_str().to_owned()).collect(), ..AuditFilter::default() }
}

async fn one(world: &World, action: Action) -> AuditEntry {
    let mut entries = all(world, &of(&[action]), 10).await;
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

async fn key(world: &World, name: &str) -> Actor {
    let new = NewKey {
        prefix: format!("prefix-{name}"),
        secret_sha256: "5e".repeat(32),
        workspace_id: None,
        role: Role::Admin,
        name: name.into(),
        expires_at: None,
    };
    let key = world.store.create_key(new, None).await.expect("made");
    Actor { key_id: key.id, name: key.name, request_id: format!("request-of-{name}") }
}

fn by(tenant: &Tenant, actor: &Actor) -> Submission {
    Submission { by: actor.clone(), ..tenant.submission() }
}

/// A job that has ended.
async fn ended(world: &World, submission: Submission) -> JobId {
    let id = world.submit(submission).await.id;
    let job = world.claim_one().await;
    assert!(world.finish(&job, JobState::Failed).await);
    id
}

on_both! {
    async fn every_change_has_an_entry_with_what_was_before_and_after(world) {
        let root = key(&world, "root").await;
        let made = world.store.create_workspace("acme", "Acme", Some(&root)).await.expect("made");
        let entry = one(&world, Action::WorkspaceCreate).await;
        assert_eq!(entry.detail, json!({"before": null, "after": {"slug": "acme", "title": "Acme"}}));
        assert_eq!((entry.workspace_id.as_ref(), entry.target_id.as_str()), (Some(&made.id), made.id.as_str()));
        assert_eq!((&entry.actor_id, entry.actor_name.as_str()), (&root.key_id, "root"));
        assert_eq!(entry.request_id, "request-of-root");

        let change = WorkspaceChange { weight: Some(300), max_queued: Some(Some(7)), ..WorkspaceChange::default() };
        for _ in 0..2 {
            world.store.change_workspace(&made.id, change.clone(), &root).await.expect("changed");
        }
        let entry = one(&world, Action::WorkspaceChange).await;
        let shown = |weight: i64, max: Option<i64>| json!({"title": "Acme", "weight": weight, "max_queued": max, "max_running": null, "paused": false});
        assert_eq!(entry.detail, json!({"before": shown(100, None), "after": shown(300, Some(7))}), "the second changed nothing");

        let expires = now_ms() + 1_000;
        let new = NewKey {
            prefix: "adeX".into(),
            secret_sha256: "ab".repeat(32),
            workspace_id: Some(made.id.clone()),
            role: Role::Editor,
            name: "nightly".into(),
            expires_at: Some(expires),
        };
        let nightly = world.store.create_key(new, Some(&root)).await.expect("made");
        let entry = one(&world, Action::KeyCreate).await;
        assert_eq!((entry.workspace_id.as_ref(), entry.target_id.as_str()), (Some(&made.id), nightly.id.as_str()));
        let after = json!({"prefix": "adeX", "name": "nightly", "role": "editor", "expires_at": ade::events::at(expires)});
        assert_eq!(entry.detail, json!({"before": null, "after": after}));
        for _ in 0..2 {
            world.store.revoke_key(&nightly.id, &root).await.expect("revoked");
        }
        let entry = one(&world, Action::KeyRevoke).await;
        assert!(entry.detail["before"]["revoked_at"].is_null() && entry.detail["after"]["revoked_at"].is_string());

        for _ in 0..2 {
            let change = InstanceChange { queue_state: Some(QueueState::Paused), ..InstanceChange::default() };
            world.store.change_instance(change, &root).await.expect("changed");
        }
        let entry = one(&world, Action::InstanceChange).await;
        assert_eq!((entry.target_kind.as_str(), entry.workspace_id.as_ref()), ("instance", None));
        assert_eq!((&entry.detail["before"]["queue_state"], &entry.detail["after"]["queue_state"]), (&json!("on"), &json!("paused")));
        let change = InstanceChange { queue_state: Some(QueueState::On), ..InstanceChange::default() };
        world.store.change_instance(change, &root).await.expect("changed");

        let tenant = world.tenant("other").await;
        for _ in 0..2 {
            world.store.bound_config(&tenant.workspace, &tenant.config, Some(3), &root).await.expect("bound");
        }
        let entry = one(&world, Action::ConfigChange).await;
        assert_eq!(entry.detail, json!({"before": {"max_running": null}, "after": {"max_running": 3}}));

        let entry = one(&world, Action::DocumentUpload).await;
        assert_eq!(entry.target_id, tenant.document.document_id.as_str());
        let content = json!({"bytes": 10, "sha256": tenant.document.sha256});
        assert_eq!(entry.detail, json!({"before": null, "after": content}), "and not its name");
        let gone = world.store.delete_document(&tenant.workspace, &tenant.document.document_id, Some(&root)).await;
        assert_eq!(gone.expect("deleted"), Some(true));
        assert_eq!(one(&world, Action::DocumentDelete).await.detail, json!({"before": content, "after": null}));
        let kept = world.document(&tenant.workspace, 1).await;
        world.store.delete_document(&tenant.workspace, &kept.document_id, None).await.expect("deleted");
        one(&world, Action::DocumentDelete).await;
    }

    async fn a_change_whose_entry_cannot_be_written_is_not_made(world) {
        let tenant = world.tenant("acme").await;
        let root = key(&world, "root").await;
        let job = world.submit(by(&tenant, &root)).await;
        world.sql("ALTER TABLE audit RENAME TO gone").await;
        world.store.create_workspace("more", "More", Some(&root)).await.expect_err("no audit");
        let change = WorkspaceChange { weight: Some(300), ..WorkspaceChange::default() };
        world.store.change_workspace(&tenant.workspace, change, &root).await.expect_err("no audit");
        world.store.revoke_key(&root.key_id, &root).await.expect_err("no audit");
        let change = InstanceChange { safe_mode: Some(true), ..InstanceChange::default() };
        world.store.change_instance(change, &root).await.expect_err("no audit");
        world.store.bound_config(&tenant.workspace, &tenant.config, Some(3), &root).await.expect_err("no audit");
        world.store.cancel(&tenant.workspace, &job.id, &root).await.expect_err("no audit");
        world.sql("ALTER TABLE gone RENAME TO audit").await;
        assert!(world.store.workspace_by_slug("more").await.expect("an answer").is_none());
        assert_eq!(world.workspace(&tenant.workspace).await.weight, 100);
        assert_eq!(world.store.key(&root.key_id).await.expect("an answer").expect("it is there").revoked_at, None);
        assert!(!world.store.instance().await.expect("an instance").safe_mode);
        assert_eq!(world.config_row(&tenant).await.max_running, None);
        let row = world.store.job(&tenant.workspace, &job.id).await.expect("an answer").expect("it is there");
        assert_eq!(row.state, JobState::Queued);
    }

    async fn a_submission_is_in_the_audit_before_and_after_its_job_is_deleted(world) {
        let tenant = world.tenant("acme").await;
        let (ada, bob) = (key(&world, "ada").await, key(&world, "bob").await);
        let submission = by(&tenant, &ada);
        let first = ended(&world, submission.clone()).await;
        let again = Submission { retry_of: Some((first.clone(), 1)), by: bob.clone(), ..submission };
        let second = world.submit(again.clone()).await;
        assert!(world.try_submit(again).await.expect("taken").replayed, "what is there already is no change");
        for _ in 0..2 {
            world.store.cancel(&tenant.workspace, &second.id, &bob).await.expect("cancelled");
        }

        let filter = of(&[Action::JobSubmit, Action::JobRetry, Action::JobCancel]);
        let before = all(&world, &filter, 10).await;
        let said: Vec<_> = before.iter().map(|entry| (entry.action.as_str(), entry.target_id.as_str(), entry.actor_name.as_str())).collect();
        assert_eq!(said, [
            ("job.cancel", second.id.as_str(), "bob"),
            ("job.retry", second.id.as_str(), "bob"),
            ("job.submit", first.as_str(), "ada"),
        ]);
        assert_eq!(before[0].detail, json!({"before": {"status": "queued"}, "after": {"status": "cancelled"}}));
        let work = json!({"config_version_id": tenant.version, "document_ids": [tenant.document.document_id]});
        assert_eq!(before[2].detail, json!({"before": null, "after": work}));
        assert_eq!(before[1].detail["after"]["retry_of_job_id"], json!(first));
        assert_eq!((before[2].request_id.as_str(), before[2].id.clone()), ("request-of-ada", AuditId::of_submission(&first)));

        for job in [&first, &second.id] {
            world.store.delete_job(job).await.expect("deleted");
            assert!(world.store.job(&tenant.workspace, job).await.expect("an answer").is_none());
            world.store.delete_job(job).await.expect("nothing to do");
        }
        let after = all(&world, &filter, 10).await;
        assert_eq!(format!("{after:?}"), format!("{before:?}"));
        assert_eq!(world.count("SELECT count(*) FROM audit WHERE action IN ('job.submit', 'job.retry')").await, 2);
    }

    async fn the_database_keeps_what_a_job_says_of_its_submission(world) {
        let tenant = world.tenant("acme").await;
        let ada = key(&world, "ada").await;
        let job = ended(&world, by(&tenant, &ada)).await;
        for sql in [
            "UPDATE jobs SET submitted_by = 'somebody else'",
            "UPDATE jobs SET request_id = 'another'",
            "UPDATE jobs SET queued_at = 1",
            "UPDATE jobs SET documents = '[]'",
            "DELETE FROM jobs",
        ] {
            let refusal = world.try_sql(sql).await.expect_err("refused").to_string();
            assert!(refusal.contains("append-only"), "{sql}: {refusal}");
        }
        let waiting = world.submit(by(&tenant, &ada)).await;
        world.store.delete_job(&waiting.id).await.expect("an answer");
        assert!(world.store.job(&tenant.workspace, &waiting.id).await.expect("an answer").is_some(), "it has not ended");
        assert_eq!(world.count("SELECT count(*) FROM audit WHERE action = 'job.submit'").await, 0);
        world.store.delete_job(&job).await.expect("deleted");
    }

    async fn filters_find_what_they_name(world) {
        let (tenant, neighbour) = (world.tenant("acme").await, world.tenant("other").await);
        let (ada, bob) = (key(&world, "ada").await, key(&world, "bob").await);
        let mine = world.submit(by(&tenant, &ada)).await;
        let theirs = world.submit(by(&neighbour, &bob)).await;
        let deleted = {
            world.store.cancel(&neighbour.workspace, &theirs.id, &bob).await.expect("cancelled");
            world.store.delete_job(&theirs.id).await.expect("deleted");
            theirs.id
        };
        let found = async |filter: AuditFilter| -> Vec<(String, String)> {
            let entries = all(&world, &filter, 2).await;
            entries.into_iter().map(|entry| (entry.action, entry.target_id)).collect()
        };
        let job = |action: &str, id: &JobId| (action.to_owned(), id.to_string());
        let by_actor = |actor: &Actor| AuditFilter { actor_id: Some(actor.key_id.clone()), ..AuditFilter::default() };
        assert_eq!(found(by_actor(&ada)).await, [job("job.submit", &mine.id)]);
        assert_eq!(found(by_actor(&bob)).await, [job("job.cancel", &deleted), job("job.submit", &deleted)]);
        let target = |id: &str| AuditFilter { target_id: Some(id.into()), ..AuditFilter::default() };
        assert_eq!(found(target(mine.id.as_str())).await, [job("job.submit", &mine.id)]);
        assert_eq!(found(target(deleted.as_str())).await.len(), 2);
        let elsewhere = AuditFilter { workspace_id: Some(tenant.workspace.clone()), ..target(deleted.as_str()) };
        assert!(found(elsewhere).await.is_empty(), "it is of another workspace");
        assert_eq!(found(target(tenant.config.as_str())).await.len(), 1);
        assert!(found(target("nothing")).await.is_empty());
        let both = AuditFilter { workspace_id: Some(tenant.workspace.clone()), ..of(&[Action::JobSubmit, Action::ConfigCreate]) };
        assert_eq!(found(both).await.len(), 2);
        assert_eq!(found(of(&[Action::JobRetry])).await, []);
        let own = AuditFilter { workspace_id: Some(tenant.workspace.clone()), ..AuditFilter::default() };
        let own = found(own).await.into_iter().map(|(action, _)| action).collect::<Vec<_>>();
        assert_eq!(own, ["job.submit", "config.create", "document.upload"]);
    }

    async fn windows_of_time_have_everything_once(world) {
        let tenant = world.tenant("acme").await;
        let root = key(&world, "root").await;
        let mut times = vec![0];
        for turn in 0..6 {
            ended(&world, by(&tenant, &root)).await;
            let change = WorkspaceChange { weight: Some(200 + turn), ..WorkspaceChange::default() };
            world.store.change_workspace(&tenant.workspace, change, &root).await.expect("changed");
            let newest = &all(&world, &AuditFilter::default(), 100).await[0];
            // A time that entries have, as a bound.
            times.push(newest.at);
        }
        times.push(i64::MAX);
        let whole = all(&world, &AuditFilter::default(), 100).await;
        let mut windows = Vec::new();
        for pair in times.windows(2) {
            let filter = AuditFilter { created_after: Some(pair[0]), created_until: Some(pair[1]), ..AuditFilter::default() };
            windows.extend(all(&world, &filter, 3).await);
        }
        let ids = |entries: &[AuditEntry]| entries.iter().map(|entry| entry.id.clone()).collect::<BTreeSet<_>>();
        assert_eq!((windows.len(), ids(&windows)), (whole.len(), ids(&whole)));
    }

    async fn a_few_among_many_are_found_and_one_call_looks_at_so_many_only(world) {
        let tenant = world.tenant("acme").await;
        let (root, rare) = (key(&world, "root").await, key(&world, "rare").await);
        let oldest = world.submit(by(&tenant, &rare)).await;
        // More entries than one call looks at, each younger.
        let many = 110_000;
        let numbers = match world.kind {
            Kind::Sqlite => format!("(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {many}) SELECT n FROM c)"),
            Kind::Postgres => format!("(SELECT n FROM generate_series(1, {many}) AS s(n))"),
        };
        let padded = match world.kind {
            Kind::Sqlite => "printf('%024d', s.n)",
            Kind::Postgres => "lpad(CAST(s.n AS TEXT), 24, '0')",
        };
        world.sql(&format!(
            "INSERT INTO audit (id, at, workspace_id, actor_id, actor_name, action, target_kind, target_id, detail, request_id) \
             SELECT 'aud_7Z' || {padded}, {}, '{}', '{}', 'root', 'network.set', 'instance', 'x', '{{}}', '' FROM {numbers} AS s",
            now_ms(), tenant.workspace, root.key_id,
        ))
        .await;
        let filter = AuditFilter { actor_id: Some(rare.key_id.clone()), ..AuditFilter::default() };
        let part = world.store.audit(&filter, 10).await.expect("entries");
        assert!(part.entries.is_empty() && part.rest.is_some(), "{part:?}");
        for workspace_id in [None, Some(tenant.workspace.clone())] {
            let found = all(&world, &AuditFilter { workspace_id, ..filter.clone() }, 10).await;
            assert_eq!(found.iter().map(|entry| entry.target_id.as_str()).collect::<Vec<_>>(), [oldest.id.as_str()]);
        }
        let action = AuditFilter { workspace_id: Some(tenant.workspace.clone()), ..of(&[Action::JobSubmit]) };
        assert_eq!(all(&world, &action, 10).await.len(), 1);
        assert_eq!(all(&world, &AuditFilter { actor_id: Some(root.key_id.clone()), ..AuditFilter::default() }, 7_000).await.len(), many);
    }

    async fn who_reads_while_others_write_and_delete_misses_nothing_and_has_nothing_twice(world) {
        let tenant = world.tenant("acme").await;
        let root = key(&world, "root").await;
        let mut jobs = Vec::new();
        for _ in 0..60 {
            jobs.push(ended(&world, by(&tenant, &root)).await);
        }
        let there: BTreeSet<AuditId> = all(&world, &AuditFilter::default(), 500).await.into_iter().map(|entry| entry.id).collect();
        assert!(there.len() >= 60);
        let writer = {
            let (store, tenant, defaults) = (world.another().await, tenant.clone(), world.defaults);
            let root = root.clone();
            tokio::spawn(async move {
                for (turn, job) in jobs.iter().rev().enumerate() {
                    store.delete_job(job).await.expect("deleted");
                    let (answers, _) = store.submit(&[by(&tenant, &root)], &defaults).await.expect("answers");
                    assert!(answers[0].is_ok());
                    let change = WorkspaceChange { weight: Some(500 + i64::try_from(turn).expect("few")), ..WorkspaceChange::default() };
                    store.change_workspace(&tenant.workspace, change, &root).await.expect("changed");
                }
                store.close().await;
            })
        };
        let mut walks = 0;
        while !writer.is_finished() || walks == 0 {
            let own = AuditFilter { workspace_id: Some(tenant.workspace.clone()), ..AuditFilter::default() };
            for filter in [AuditFilter::default(), own, AuditFilter { created_after: Some(1), ..AuditFilter::default() }] {
                let found: BTreeSet<AuditId> = all(&world, &filter, 4).await.into_iter().map(|entry| entry.id).collect();
                let missing: Vec<_> = there.difference(&found).collect();
                assert!(missing.is_empty(), "walk {walks}: {missing:?}");
            }
            walks += 1;
        }
        writer.await.expect("no panic");
        let submissions = all(&world, &of(&[Action::JobSubmit]), 7).await;
        assert_eq!(submissions.len(), 120);
        assert!(submissions.iter().all(|entry| entry.detail["before"] == Value::Null && entry.actor_name == "root"));
    }
}
