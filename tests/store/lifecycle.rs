//! Versions are published once and never changed; what is archived takes no jobs; each change has its entry in the audit.

use crate::harness::{Tenant, World, actor, number};
use ade::ids::{ConfigId, VersionId, WorkspaceId};
use ade::queue::JobState;
use ade::store::{Blocked, Moved, NewVersion, Published, Refused, Version};
use std::collections::BTreeSet;

pub fn package(sha256: u64) -> NewVersion {
    NewVersion {
        package_sha256: format!("{sha256:064x}"),
        manifest_sha256: format!("{sha256:064x}"),
        manifest_version: "1.2.3".into(),
        package_bytes: 100,
    }
}

async fn publish(world: &World, tenant: &Tenant, new: &NewVersion) -> Result<Published, Blocked> {
    let by = actor("author");
    world.store.publish_version(&tenant.workspace, &tenant.config, new, &by).await.expect("an answer")
}

async fn published(world: &World, tenant: &Tenant) -> Version {
    match publish(world, tenant, &package(number())).await {
        Ok(Published::New(version)) => version,
        other => panic!("a new one: {other:?}"),
    }
}

async fn archive(world: &World, tenant: &Tenant, version: &VersionId, archive: bool) -> Result<Version, Blocked> {
    let by = actor("owner");
    let Tenant { workspace, config, .. } = tenant;
    world.store.archive_version(workspace, config, version, archive, &by).await.expect("an answer")
}

async fn archive_config(world: &World, tenant: &Tenant, archive: bool) -> Result<(), Blocked> {
    let by = actor("owner");
    let changed = world.store.archive_config(&tenant.workspace, &tenant.config, archive, &by).await;
    changed.expect("an answer").map(|config| assert_eq!(config.archived_at.is_some(), archive))
}

async fn activate(world: &World, tenant: &Tenant, version: &VersionId) {
    let before = world.workspace(&tenant.workspace).await.active_version_id;
    let moved = world.store.activate_version(&tenant.workspace, version, before.as_ref(), &actor("owner")).await;
    assert!(matches!(moved, Ok(Moved::Active(_))), "{moved:?}");
}

/// Actions of the history of a config, oldest first.
async fn history(world: &World, config: &ConfigId) -> Vec<String> {
    let entries = world.store.history(config, None, 100).await.expect("entries");
    entries.into_iter().rev().map(|entry| entry.action).collect()
}

on_both! {
    async fn versions_are_numbered_and_the_newest_has_no_twin(world) {
        let tenant = world.tenant("acme").await;
        let new = package(number());
        let Ok(Published::New(second)) = publish(&world, &tenant, &new).await else { panic!("a new one") };
        assert_eq!((second.number, second.config_id.clone()), (2, tenant.config.clone()));
        let Ok(Published::Unchanged(same)) = publish(&world, &tenant, &new).await else { panic!("no twin") };
        assert_eq!(same.id, second.id);
        let third = published(&world, &tenant).await;
        assert_eq!(third.number, 3);
        // What was there before the newest is a new version: going back is a step forward.
        let Ok(Published::New(fourth)) = publish(&world, &tenant, &new).await else { panic!("a new one") };
        assert_eq!((fourth.number, fourth.package_sha256 == second.package_sha256), (4, true));
        let kept = world.store.version(&tenant.workspace, &second.id).await.expect("an answer").expect("it is there");
        assert_eq!((kept.manifest_version.as_str(), kept.package_bytes), ("1.2.3", 100));
        assert_eq!(history(&world, &tenant.config).await, ["config.create", "version.publish", "version.publish", "version.publish"]);
        // An archived one is no newest, and its number is not given again.
        archive(&world, &tenant, &fourth.id, true).await.expect("archived");
        let newest = world.store.newest_version(&tenant.config).await.expect("an answer").expect("there is one");
        assert_eq!(newest.id, third.id);
        let Ok(Published::New(fifth)) = publish(&world, &tenant, &new).await else { panic!("a new one") };
        assert_eq!(fifth.number, 5);
        let all = world.store.versions(&tenant.config, None, 10).await.expect("versions");
        assert_eq!(all.iter().map(|version| version.number).collect::<Vec<_>>(), [5, 4, 3, 2, 1]);
    }

    async fn publications_at_once_get_numbers_of_their_own_and_equal_ones_are_one(world) {
        let tenant = world.tenant("acme").await;
        let other = world.another().await;
        let same = package(number());
        let calls = (0..12).map(|turn| {
            let store = if turn % 2 == 0 { world.store.clone() } else { other.clone() };
            let new = if turn < 4 { same.clone() } else { package(number()) };
            let tenant = tenant.clone();
            tokio::spawn(async move {
                store.publish_version(&tenant.workspace, &tenant.config, &new, &actor("author")).await.expect("an answer")
            })
        });
        let mut made = BTreeSet::new();
        for call in calls.collect::<Vec<_>>() {
            if let Published::New(version) = call.await.expect("no panic").expect("published") {
                assert!(made.insert(version.number));
            }
        }
        assert_eq!(made, (2..2 + made.len() as i64).collect::<BTreeSet<_>>(), "no gap and no number twice");
        let stored = world.store.versions(&tenant.config, None, 50).await.expect("versions");
        assert!(stored.windows(2).all(|pair| pair[0].package_sha256 != pair[1].package_sha256), "no twin beside another");
        let entries = history(&world, &tenant.config).await;
        assert_eq!(entries.len(), stored.len(), "an entry for each, and none for what made no version");
    }

    async fn what_is_archived_takes_no_jobs_and_those_it_has_go_on(world) {
        let tenant = world.tenant("acme").await;
        let (running, waiting) = (world.running(&tenant).await, world.submit(tenant.submission()).await);
        let known = tenant.submission();
        let twin = world.submit(known.clone()).await;
        archive(&world, &tenant, &tenant.version, true).await.expect("archived");
        assert_eq!(world.try_submit(tenant.submission()).await.expect_err("refused"), Refused::Archived);
        // The same work again is no new job.
        assert_eq!(world.try_submit(known).await.expect("the job that is there").job.id, twin.id);
        assert!(world.finish(&running, JobState::Succeeded).await);
        let claimed: Vec<_> = world.claim(5).await.into_iter().map(|claimed| claimed.job.id).collect();
        assert_eq!(claimed, [waiting.id, twin.id]);
        archive(&world, &tenant, &tenant.version, false).await.expect("restored");
        world.submit(tenant.submission()).await;

        archive_config(&world, &tenant, true).await.expect("archived");
        assert_eq!(world.try_submit(tenant.submission()).await.expect_err("refused"), Refused::Archived);
        assert_eq!(publish(&world, &tenant, &package(number())).await.expect_err("refused"), Blocked::Archived);
        let moved = world.store.activate_version(&tenant.workspace, &tenant.version, None, &actor("owner")).await;
        assert_eq!(moved.expect("an answer"), Moved::Archived);
        let again = world.store.create_config(&tenant.workspace, "orders", "", "", &package(1), &actor("owner")).await;
        assert!(matches!(again, Err(ade::store::StoreError::Exists(_))), "its slug is its own: {again:?}");
        archive_config(&world, &tenant, false).await.expect("restored");
        world.submit(tenant.submission()).await;
        let done = ["config.create", "version.archive", "version.restore", "config.archive", "config.restore"];
        assert_eq!(history(&world, &tenant.config).await, done);
    }

    async fn what_is_so_already_is_no_change_and_what_is_not_there_is_none(world) {
        let (tenant, neighbour) = (world.tenant("acme").await, world.tenant("other").await);
        archive(&world, &tenant, &tenant.version, false).await.expect("it is not");
        archive_config(&world, &tenant, false).await.expect("it is not");
        archive(&world, &tenant, &tenant.version, true).await.expect("archived");
        let first = archive(&world, &tenant, &tenant.version, true).await.expect("it is").archived_at;
        world.sql("UPDATE config_versions SET archived_at = 12345 WHERE archived_at IS NOT NULL").await;
        let second = archive(&world, &tenant, &tenant.version, true).await.expect("it is").archived_at;
        assert!(first.is_some() && second == Some(12345), "the first time stays");
        assert_eq!(history(&world, &tenant.config).await, ["config.create", "version.archive"]);
        let foreign = Tenant { workspace: neighbour.workspace.clone(), ..tenant.clone() };
        assert_eq!(archive_config(&world, &foreign, true).await, Err(Blocked::Gone));
        assert_eq!(archive(&world, &foreign, &tenant.version, false).await.expect_err("none"), Blocked::Gone);
        assert_eq!(archive(&world, &neighbour, &tenant.version, false).await.expect_err("none"), Blocked::Gone);
        assert_eq!(archive(&world, &tenant, &VersionId::generate(), true).await.expect_err("none"), Blocked::Gone);
        assert_eq!(publish(&world, &foreign, &package(number())).await.expect_err("none"), Blocked::Gone);
        let nobody = Tenant { workspace: WorkspaceId::generate(), ..tenant.clone() };
        assert_eq!(publish(&world, &nobody, &package(number())).await.expect_err("none"), Blocked::Gone);
        assert_eq!(world.count("SELECT count(*) FROM config_versions").await, 2);
    }

    async fn the_active_version_and_its_config_cannot_be_archived_until_it_is_taken_back(world) {
        let tenant = world.tenant("acme").await;
        let second = published(&world, &tenant).await;
        activate(&world, &tenant, &second.id).await;
        let since = world.workspace(&tenant.workspace).await.active_since;
        assert!(since.is_some());
        assert_eq!(archive(&world, &tenant, &second.id, true).await.expect_err("refused"), Blocked::Active(second.id.clone()));
        assert_eq!(archive_config(&world, &tenant, true).await, Err(Blocked::Active(second.id.clone())));
        archive(&world, &tenant, &tenant.version, true).await.expect("only the active one is kept");
        assert!(!world.store.deactivate_version(&published(&world, &tenant).await, &actor("owner")).await.expect("an answer"));
        assert!(world.store.deactivate_version(&second, &actor("owner")).await.expect("an answer"));
        assert!(!world.store.deactivate_version(&second, &actor("owner")).await.expect("an answer"), "once");
        let none = world.workspace(&tenant.workspace).await;
        assert_eq!((none.active_version_id, none.active_since), (None, None));
        archive(&world, &tenant, &second.id, true).await.expect("archived");
        archive_config(&world, &tenant, true).await.expect("archived");
        let done = [
            "config.create", "version.publish", "config.activate", "version.archive", "version.publish", "config.deactivate",
            "version.archive", "config.archive",
        ];
        assert_eq!(history(&world, &tenant.config).await, done);
    }

    async fn archiving_and_activating_at_once_never_leaves_an_archived_version_active(world) {
        let tenant = world.tenant("acme").await;
        for _ in 0..20 {
            let version = published(&world, &tenant).await.id;
            let before = world.workspace(&tenant.workspace).await.active_version_id;
            let (workspace, by) = (tenant.workspace.clone(), actor("owner"));
            let (store, target) = (world.another().await, version.clone());
            let activating = tokio::spawn(async move {
                store.activate_version(&workspace, &target, before.as_ref(), &by).await.expect("an answer")
            });
            let archived = archive(&world, &tenant, &version, true).await;
            let moved = activating.await.expect("no panic");
            assert_ne!(archived.is_ok(), matches!(moved, Moved::Active(_)), "{archived:?} {moved:?}");
        }
        let both = "SELECT count(*) FROM workspaces w JOIN config_versions v ON v.id = w.active_version_id \
                    WHERE v.archived_at IS NOT NULL";
        assert_eq!(world.count(both).await, 0);
    }

    async fn a_change_of_a_config_whose_entry_cannot_be_written_does_not_happen(world) {
        let tenant = world.tenant("acme").await;
        let version = world.store.version(&tenant.workspace, &tenant.version).await.expect("an answer").expect("it is there");
        activate(&world, &tenant, &tenant.version).await;
        world.sql("ALTER TABLE audit RENAME TO gone").await;
        let (by, Tenant { workspace, config, .. }) = (actor("owner"), &tenant);
        world.store.publish_version(workspace, config, &package(number()), &by).await.expect_err("no audit");
        world.store.create_config(workspace, "more", "", "", &package(number()), &by).await.expect_err("no audit");
        world.store.deactivate_version(&version, &by).await.expect_err("no audit");
        assert_eq!(world.count("SELECT count(*) FROM config_versions").await, 1);
        assert_eq!(world.count("SELECT count(*) FROM configs").await, 1);
        assert_eq!(world.workspace(workspace).await.active_version_id.as_ref(), Some(&tenant.version));
        world.sql("UPDATE workspaces SET active_version_id = NULL").await;
        world.store.archive_version(workspace, config, &tenant.version, true, &by).await.expect_err("no audit");
        world.store.archive_config(workspace, config, true, &by).await.expect_err("no audit");
        assert_eq!(world.config_row(&tenant).await.archived_at, None);
        let kept = world.store.version(workspace, &tenant.version).await.expect("an answer").expect("it is there");
        assert_eq!(kept.archived_at, None);
    }

    async fn history_is_paged_and_of_one_config(world) {
        let (tenant, neighbour) = (world.tenant("acme").await, world.tenant("other").await);
        for _ in 0..4 {
            published(&world, &tenant).await;
            published(&world, &neighbour).await;
        }
        let first = world.store.history(&tenant.config, None, 3).await.expect("entries");
        let rest = world.store.history(&tenant.config, Some(first[2].id.as_str()), 9).await.expect("entries");
        assert_eq!((first.len(), rest.len()), (3, 2));
        assert!(first.iter().chain(&rest).all(|entry| entry.target_id == tenant.config.as_str()));
        assert!(first.iter().chain(&rest).is_sorted_by(|a, b| a.id > b.id));
        assert_eq!(rest[1].detail["after"]["slug"], "orders");
    }
}
