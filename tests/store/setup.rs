//! Opening a database, and the installation's row.

use crate::harness::{Kind, actor};
use ade::ids::{ConfigId, InstanceId, VersionId, WorkspaceId};
use ade::network::Access;
use ade::queue::JobState;
use ade::store::{AuditFilter, InstanceChange, NodeRecord, QueueState, Store, StoreError, now_ms};
use std::collections::BTreeSet;

on_both! {
    async fn an_empty_database_is_brought_up_to_date_and_a_second_time_nothing_happens(world) {
        let applied = "SELECT count(*) FROM _sqlx_migrations";
        let before = world.count(applied).await;
        assert!(before > 0);
        let tenant = world.tenant("acme").await;
        let again = world.another().await;
        assert_eq!(world.count(applied).await, before);
        assert!(again.workspace(&tenant.workspace).await.expect("an answer").is_some(), "what was there is there");
        assert_eq!(again.is_shared(), world.kind == Kind::Postgres);
        again.ping().await.expect("it answers");
    }

    async fn a_database_that_a_newer_program_has_used_is_refused_and_left_alone(world) {
        let known = world.count("SELECT max(version) FROM _sqlx_migrations").await;
        for version in [9998, 9999] {
            world
                .sql(&format!(
                    "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
                     SELECT {version}, 'from the future', installed_on, success, checksum, execution_time \
                     FROM _sqlx_migrations WHERE version = {known}"
                ))
                .await;
        }
        match Store::open(&world.url).await {
            Err(StoreError::TooNew { found, known: said }) => assert!(said == known && found > known, "{found}, {said}"),
            other => panic!("it must be refused: {other:?}"),
        }
    }

    async fn what_version_1_stored_is_there_after_the_migration_and_a_program_of_version_1_refuses_then(world) {
        let old = world.of_version(1).await;
        let (workspace, config) = (WorkspaceId::generate(), ConfigId::generate());
        old.run(&format!(
            "INSERT INTO instance (only_row, id, created_at, queue_state, max_queued) VALUES (1, '{}', 1, 'paused', 7);
             INSERT INTO workspaces (id, slug, title, created_at, weight) VALUES ('{workspace}', 'acme', 'Acme', 1, 700);
             INSERT INTO configs (id, workspace_id, slug, title, description, created_at, max_running)
             VALUES ('{config}', '{workspace}', 'orders', 'Orders', 'old', 1, 3);",
            InstanceId::generate(),
        ))
        .await;
        let store = Store::open(&old.url).await.expect("it is brought up to date");
        let instance = store.instance().await.expect("an instance");
        assert_eq!((instance.queue_state, instance.max_queued), (QueueState::Paused, Some(7)));
        assert_eq!(instance.network_switch, None, "the setting of the nodes counts");
        let kept = store.workspace(&workspace).await.expect("an answer").expect("it is there");
        assert_eq!((kept.title.as_str(), kept.weight, kept.network), ("Acme", 700, Access::Inherit));
        let kept = store.config(&workspace, &config).await.expect("an answer").expect("it is there");
        assert_eq!((kept.description.as_str(), kept.max_running), ("old", Some(3)));
        assert_eq!((kept.network, kept.allowed_hosts, kept.source_builds), (Access::Inherit, Vec::new(), false));
        assert!(store.audit(&AuditFilter::default(), 10).await.expect("entries").entries.is_empty());
        store.close().await;
        let refusal = old.open_as_version(1).await.expect_err("a database of version 2");
        assert!(matches!(refusal, sqlx::migrate::MigrateError::VersionMissing(2)), "{refusal}");
    }

    /// Version 4 tells since when a version is active; before, only the audit knew.
    async fn what_was_active_before_version_4_is_active_since_its_last_activation(world) {
        let old = world.of_version(3).await;
        let (active, other) = (WorkspaceId::generate(), WorkspaceId::generate());
        let (none, unknown) = (WorkspaceId::generate(), WorkspaceId::generate());
        let version = || Some(VersionId::generate());
        for (workspace, version) in [(&active, version()), (&other, version()), (&none, None), (&unknown, version())] {
            let slug = workspace.as_str().replace('_', "-").to_lowercase();
            let version = version.map_or_else(|| "NULL".to_owned(), |version| format!("'{version}'"));
            old.run(&format!(
                "INSERT INTO workspaces (id, slug, title, created_at, active_version_id) \
                 VALUES ('{workspace}', '{slug}', 'W', 1, {version})"
            ))
            .await;
        }
        // The times are not in the order of the entries, and what is not an activation of the workspace does not count.
        for (number, (workspace, at, action)) in [
            (&active, 500, "config.activate"),
            (&active, 900, "config.activate"),
            (&active, 700, "config.activate"),
            (&active, 2_000, "network.set"),
            (&other, 1_200, "config.activate"),
            (&none, 1_500, "config.activate"),
        ]
        .into_iter()
        .enumerate()
        {
            old.run(&format!(
                "INSERT INTO audit (id, at, workspace_id, actor_id, actor_name, action, target_kind, target_id, detail, request_id) \
                 VALUES ('aud_{number}', {at}, '{workspace}', 'key_x', 'admin', '{action}', 'config', 'cfg_x', '{{}}', 'r')"
            ))
            .await;
        }
        let store = Store::open(&old.url).await.expect("it is brought up to date");
        for (workspace, since) in [(&active, Some(900)), (&other, Some(1_200)), (&none, None), (&unknown, None)] {
            let kept = store.workspace(workspace).await.expect("an answer").expect("it is there");
            assert_eq!(kept.active_since, since, "{kept:?}");
        }
        store.close().await;
    }

    async fn first_calls_at_once_make_one_installation(world) {
        let other = world.another().await;
        world.sql("DELETE FROM instance").await;
        let calls = (0..32).map(|turn| {
            let store = if turn % 2 == 0 { world.store.clone() } else { other.clone() };
            tokio::spawn(async move { store.instance().await.expect("an instance").id })
        });
        let mut ids = BTreeSet::new();
        for call in calls.collect::<Vec<_>>() {
            ids.insert(call.await.expect("no panic"));
        }
        assert_eq!(ids.len(), 1, "{ids:?}");
    }

    async fn a_store_works_without_anybody_asking_for_the_instance_first(world) {
        world.sql("DELETE FROM instance").await;
        let fresh = world.another().await;
        fresh.create_workspace("acme", "Acme", None).await.expect("the row was made at opening");
    }

    async fn what_an_admin_changed_is_kept_and_can_be_taken_back(world) {
        let change = InstanceChange {
            queue_state: Some(QueueState::Paused),
            safe_mode: Some(true),
            max_queued: Some(Some(7)),
            max_concurrency: Some(Some(3)),
        };
        world.store.change_instance(change, &actor("root")).await.expect("changed");
        let kept = world.another().await.instance().await.expect("an instance");
        assert_eq!((kept.queue_state, kept.safe_mode), (QueueState::Paused, true));
        assert_eq!((kept.max_queued, kept.max_concurrency), (Some(7), Some(3)));
        let back = InstanceChange { max_queued: Some(None), safe_mode: Some(false), ..InstanceChange::default() };
        let now = world.store.change_instance(back, &actor("root")).await.expect("changed");
        assert_eq!((now.max_queued, now.max_concurrency, now.safe_mode), (None, Some(3), false));
        assert_eq!(now.queue_state, QueueState::Paused, "what is not named stays");
    }

    async fn nodes_are_listed_while_they_are_heard_of_with_what_they_run(world) {
        let tenant = world.tenant("acme").await;
        let node = NodeRecord {
            id: world.node.clone(),
            hostname: "one".into(),
            version: "1.0".into(),
            started_at: now_ms(),
            heartbeat_at: 0,
            max_concurrency: 4,
            draining: false,
            running: 0,
        };
        world.store.node_alive(&node).await.expect("noted");
        let job = world.running(&tenant).await;
        world.store.node_alive(&NodeRecord { draining: true, ..node }).await.expect("noted");
        let nodes = world.store.nodes(60_000).await.expect("nodes");
        assert_eq!(nodes.len(), 1);
        assert_eq!((nodes[0].running, nodes[0].draining, nodes[0].max_concurrency), (1, true, 4));
        assert!(world.finish(&job, JobState::Succeeded).await);
        world.sql("UPDATE nodes SET heartbeat_at = 1").await;
        assert!(world.store.nodes(60_000).await.expect("nodes").is_empty());
    }
}

#[test]
fn urls_of_other_databases_are_refused_without_showing_their_password() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let error = runtime.block_on(Store::open("mysql://ade:secret@db/ade")).expect_err("refused");
    assert!(matches!(error, StoreError::BadUrl(_)), "{error:?}");
    assert!(!error.to_string().contains("secret"), "{error}");
}
