//! Workspaces, configs, documents, keys, and what retention may delete.

use crate::harness::{actor, log};
use ade::ids::KeyId;
use ade::queue::JobState;
use ade::store::{Actor, NewKey, NewVersion, Role, StoreError, WorkspaceChange, now_ms};

fn new_key(prefix: &str) -> NewKey {
    NewKey {
        prefix: prefix.into(),
        secret_sha256: "00".repeat(32),
        workspace_id: None,
        role: Role::Admin,
        name: "a key".into(),
        expires_at: None,
    }
}

on_both! {
    async fn a_workspace_changes_where_it_is_told_to_and_stays_elsewhere(world) {
        let made = world.store.create_workspace("acme", "Acme", None).await.expect("made");
        assert_eq!((made.weight, made.paused, made.max_queued, made.max_running), (100, false, None, None));
        let change = WorkspaceChange {
            title: Some("Acme Ltd".into()),
            weight: Some(700),
            max_queued: Some(Some(5)),
            max_running: Some(Some(2)),
            paused: Some(true),
        };
        let changed = world.store.change_workspace(&made.id, change, &actor("root")).await.expect("changed").expect("it is there");
        assert_eq!((changed.title.as_str(), changed.weight, changed.paused), ("Acme Ltd", 700, true));
        let back = WorkspaceChange { max_queued: Some(None), ..WorkspaceChange::default() };
        world.store.change_workspace(&made.id, back, &actor("root")).await.expect("changed");
        let read = world.store.workspace_by_slug("acme").await.expect("an answer").expect("it is there");
        assert_eq!((read.max_queued, read.max_running, read.weight), (None, Some(2), 700));
        let taken = world.store.create_workspace("acme", "Another", None).await.expect_err("refused");
        assert!(matches!(taken, StoreError::Exists(_)), "{taken:?}");
        let gone = ade::ids::WorkspaceId::generate();
        let none = world.store.change_workspace(&gone, WorkspaceChange::default(), &actor("root")).await.expect("an answer");
        assert!(none.is_none());
    }

    async fn workspaces_configs_and_documents_are_paged_from_the_newest(world) {
        let tenant = world.tenant("acme").await;
        for turn in 0..4 {
            world.tenant(&format!("t{turn}")).await;
            world.config(&tenant.workspace, &format!("c{turn}")).await;
            world.document(&tenant.workspace, 1).await;
        }
        let all: Vec<_> = world.store.workspaces(None, 10).await.expect("a page").into_iter().map(|w| w.id).collect();
        assert_eq!(all.len(), 5);
        assert!(all.is_sorted_by(|a, b| a > b));
        let rest = world.store.workspaces(Some(all[1].as_str()), 10).await.expect("a page");
        assert_eq!(rest.into_iter().map(|w| w.id).collect::<Vec<_>>(), all[2..]);
        let configs = world.store.configs(&tenant.workspace, None, 3).await.expect("a page");
        let more = world.store.configs(&tenant.workspace, Some(configs[2].id.as_str()), 3).await.expect("a page");
        assert_eq!((configs.len(), more.len()), (3, 2));
        let documents = world.store.documents(&tenant.workspace, None, 3).await.expect("a page");
        let last = documents[2].id.as_str();
        let more = world.store.documents(&tenant.workspace, Some(last), 3).await.expect("a page");
        assert_eq!((documents.len(), more.len()), (3, 2));
        assert_eq!(world.store.versions(&tenant.config, None, 5).await.expect("a page").len(), 1);
    }

    async fn a_config_whose_slug_is_taken_leaves_nothing_behind(world) {
        let tenant = world.tenant("acme").await;
        let version = NewVersion {
            package_sha256: "aa".into(),
            manifest_sha256: "bb".into(),
            manifest_version: "1".into(),
            package_bytes: 1,
        };
        let taken = world.store.create_config(&tenant.workspace, "orders", "Orders", "", &version, &actor("root")).await;
        assert!(matches!(taken, Err(StoreError::Exists(_))), "{taken:?}");
        assert_eq!(world.count("SELECT count(*) FROM config_versions").await, 1);
        let other = world.tenant("other").await;
        let foreign = world.store.config(&other.workspace, &tenant.config).await.expect("an answer");
        assert!(foreign.is_none(), "a config is its workspace's alone");
        let foreign = world.store.bound_config(&other.workspace, &tenant.config, Some(1), &actor("root")).await.expect("an answer");
        assert!(foreign.is_none());
        assert_eq!(world.config_row(&tenant).await.max_running, None);
    }

    async fn a_key_is_found_by_its_prefix_and_keeps_when_it_was_revoked(world) {
        let tenant = world.tenant("acme").await;
        assert!(!world.store.has_admin_key().await.expect("an answer"));
        let expires = now_ms() + 86_400_000;
        let admin = world.store.create_key(NewKey { expires_at: Some(expires), ..new_key("adeA") }, None).await.expect("made");
        assert!(world.store.has_admin_key().await.expect("an answer"));
        let taken = world.store.create_key(new_key("adeA"), None).await.expect_err("refused");
        assert!(matches!(taken, StoreError::Exists(_)), "{taken:?}");
        let viewer = NewKey {
            workspace_id: Some(tenant.workspace.clone()),
            role: Role::Viewer,
            ..new_key("adeB")
        };
        let by = Actor { key_id: admin.id.clone(), ..actor("root") };
        let viewer = world.store.create_key(viewer, Some(&by)).await.expect("made");
        assert_eq!(viewer.created_by, Some(admin.id.clone()));
        let found = world.store.key_by_prefix("adeA").await.expect("an answer").expect("it is there");
        assert_eq!((found.id, found.expires_at, found.role), (admin.id.clone(), Some(expires), Role::Admin));
        assert_eq!(world.store.keys(None, None, 9).await.expect("keys").len(), 1, "the admins'");
        let theirs = world.store.keys(Some(&tenant.workspace), None, 9).await.expect("keys");
        assert_eq!(theirs.iter().map(|key| &key.id).collect::<Vec<_>>(), [&viewer.id]);
        let revoked = world.store.revoke_key(&viewer.id, &actor("root")).await.expect("an answer").expect("it is there");
        world.sql(&format!("UPDATE api_keys SET revoked_at = 12345 WHERE id = '{}'", viewer.id)).await;
        let again = world.store.revoke_key(&viewer.id, &actor("root")).await.expect("an answer").expect("it is there");
        assert!(revoked.revoked_at.is_some());
        assert_eq!(again.revoked_at, Some(12345), "the first time stays");
        world.store.key_used(&admin.id, 777).await.expect("noted");
        let used = world.store.key(&admin.id).await.expect("an answer").expect("it is there");
        assert_eq!(used.last_used_at, Some(777));
        assert!(world.store.revoke_key(&KeyId::generate(), &actor("root")).await.expect("an answer").is_none());
    }

    async fn retention_names_each_finished_job_once_and_never_one_that_is_needed(world) {
        let tenant = world.tenant("acme").await;
        let mut finished = Vec::new();
        for turn in 0..5 {
            let job = world.running(&tenant).await;
            assert!(world.finish(&job, JobState::Succeeded).await);
            world.sql(&format!("UPDATE jobs SET completed_at = {} WHERE id = '{}'", 1_000 + turn, job.id)).await;
            finished.push(job.id);
        }
        world.submit(tenant.submission()).await;
        let past = |before, keep| {
            let world = std::sync::Arc::clone(&world);
            async move {
                let jobs = world.store.jobs_past_retention(before, keep, 100).await.expect("jobs");
                jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
            }
        };
        assert!(past(Some(i64::MAX), Some(0)).await.is_empty(), "their logs are not stored yet");
        for id in &finished {
            world.store.events_are_stored(id, &log()).await.expect("stored");
        }
        assert_eq!(past(Some(1_002), None).await, finished[..2]);
        assert_eq!(past(None, Some(2)).await, finished[..3]);
        assert_eq!(past(Some(1_002), Some(2)).await, finished[..3], "each once, the oldest first");
        assert!(past(None, None).await.is_empty());
        let waiting = world.store.jobs(&tenant.workspace, &Default::default(), 1).await.expect("jobs").remove(0);
        world.store.delete_job(&waiting.id).await.expect("an answer");
        assert_eq!(world.state(&waiting).await, JobState::Queued, "only finished jobs are deleted");
        world.store.delete_job(&finished[0]).await.expect("deleted");
        assert_eq!(past(Some(1_002), None).await, finished[1..2]);
    }

    async fn retention_names_each_document_once_and_never_one_in_use(world) {
        let tenant = world.tenant("acme").await;
        let mut documents = vec![tenant.document.document_id.clone()];
        for _ in 0..3 {
            documents.push(world.document(&tenant.workspace, 10).await.document_id);
        }
        documents.sort();
        let past = |before, quota| {
            let world = std::sync::Arc::clone(&world);
            async move {
                let past = world.store.documents_past_retention(before, quota, 100).await.expect("documents");
                past.into_iter().map(|document| document.id).collect::<Vec<_>>()
            }
        };
        assert_eq!(past(None, Some(25)).await, documents[..2], "the oldest above the quota");
        assert_eq!(past(Some(i64::MAX), Some(25)).await, documents, "each once");
        assert!(past(Some(0), Some(40)).await.is_empty());
        world.submit(tenant.submission()).await;
        let used = &tenant.document.document_id;
        let left = past(Some(i64::MAX), Some(0)).await;
        assert!(!left.contains(used) && left.len() == 3);
    }
}
