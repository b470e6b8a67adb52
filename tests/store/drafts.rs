//! Drafts: each change is made on what it was meant for, what is published is what was looked at, and no content is left behind.

use crate::harness::{Tenant, World, actor, number};
use crate::lifecycle::package;
use ade::ids::{ConfigId, DraftFileId, DraftId};
use ade::store::{AuditFilter, Blocked, Draft, DraftFile, Edit, Edited, NewDraft, Published, now_ms};
use serde_json::json;
use std::collections::BTreeSet;

fn sha(content: &str) -> String {
    ade::blob::Digest::of_bytes(content.as_bytes()).to_string()
}

/// A draft from the tenant's first version, with these files.
async fn draft(world: &World, tenant: &Tenant, files: &[(&str, &str)]) -> Draft {
    try_draft(world, tenant, files, 100).await.expect("made")
}

async fn try_draft(world: &World, tenant: &Tenant, files: &[(&str, &str)], max: i64) -> Result<Draft, Blocked> {
    let base = world.store.version(&tenant.workspace, &tenant.version).await.expect("an answer");
    let file = |(path, content): &(&str, &str)| ((*path).to_owned(), content.len() as i64, sha(content));
    let new = NewDraft {
        config_id: tenant.config.clone(),
        workspace_id: tenant.workspace.clone(),
        title: "a draft".into(),
        base,
        files: files.iter().map(file).collect(),
    };
    world.store.create_draft(&new, max, &actor("editor")).await.expect("an answer")
}

/// Notes an upload, as if its content were stored.
async fn upload(world: &World, draft: &Draft, path: &str, content: &str) -> DraftFile {
    let file = DraftFile {
        id: DraftFileId::generate(),
        draft_id: draft.id.clone(),
        workspace_id: draft.workspace_id.clone(),
        path: path.into(),
        bytes: content.len() as i64,
        sha256: sha(content),
        package_sha256: None,
        updated_at: now_ms(),
    };
    world.store.begin_draft_file(&file).await.expect("noted");
    file
}

async fn edit(world: &World, draft: &Draft, edit: Edit) -> Option<Edited> {
    let place = (&draft.workspace_id, &draft.config_id, &draft.id);
    let edited = world.store.edit_draft(place, edit, &actor("editor"), |_, _| Ok::<_, ()>(())).await;
    edited.expect("an answer").map(|edited| edited.expect("allowed"))
}

async fn put(world: &World, draft: &Draft, path: &str, content: &str) -> Edited {
    let file = upload(world, draft, path, content).await;
    edit(world, draft, Edit::Put(file)).await.expect("it is there")
}

async fn now(world: &World, draft: &Draft) -> Draft {
    let found = world.store.draft(&draft.workspace_id, &draft.config_id, &draft.id).await;
    found.expect("an answer").expect("it is there")
}

/// Path and hash of every file.
async fn files(world: &World, draft: &Draft) -> Vec<(String, String)> {
    let files = world.store.draft_files(&draft.id).await.expect("files");
    files.into_iter().map(|file| (file.path, file.sha256)).collect()
}

fn of(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(path, content)| ((*path).to_owned(), sha(content))).collect()
}

/// Ids whose blobs are to be swept.
async fn loose(world: &World) -> BTreeSet<DraftFileId> {
    world.store.deleted_draft_files(100).await.expect("files").into_iter().map(|file| file.id).collect()
}

on_both! {
    async fn files_are_written_and_removed_and_the_revision_counts_changes(world) {
        let tenant = world.tenant("acme").await;
        let draft = draft(&world, &tenant, &[("manifest.json", "{}"), ("columns/a.py", "a")]).await;
        assert_eq!((draft.revision, draft.files, draft.bytes), (1, 2, 3));
        assert_eq!(draft.base_version_id.as_ref(), Some(&tenant.version));
        let edited = put(&world, &draft, "columns/b.py", "bb").await;
        assert_eq!((edited.revision, edited.before.is_none(), edited.after.is_some()), (2, true, true));
        let edited = put(&world, &draft, "columns/a.py", "aaaa").await;
        assert_eq!((edited.revision, edited.before.map(|file| file.sha256)), (3, Some(sha("a"))));
        let edited = edit(&world, &draft, Edit::Remove("manifest.json".into())).await.expect("it is there");
        assert_eq!((edited.revision, edited.after.is_none()), (4, true));
        assert_eq!(files(&world, &draft).await, of(&[("columns/a.py", "aaaa"), ("columns/b.py", "bb")]));
        let after = now(&world, &draft).await;
        assert_eq!((after.revision, after.files, after.bytes), (4, 2, 6));
        // What is there already is no change, and the content that was sent for it is not kept.
        let same = upload(&world, &draft, "columns/a.py", "aaaa").await;
        let edited = edit(&world, &draft, Edit::Put(same.clone())).await.expect("it is there");
        assert_eq!((edited.revision, edited.after.expect("a file").id == same.id), (4, false));
        let nothing = edit(&world, &draft, Edit::Remove("columns/none.py".into())).await.expect("it is there");
        assert_eq!((nothing.revision, nothing.before.is_none()), (4, true));
        let entries = world.store.audit(&AuditFilter { actions: vec!["draft.edit".into()], ..AuditFilter::default() }, 9).await;
        let entries = entries.expect("entries").entries;
        assert_eq!(entries.len(), 3);
        assert_eq!(
            entries[1].detail,
            json!({
                "draft_id": draft.id, "path": "columns/a.py", "before": {"sha256": sha("a")}, "after": {"sha256": sha("aaaa")},
            })
        );
        assert_eq!(entries[0].detail["after"], json!(null));
        assert_eq!((entries[0].target_kind.as_str(), entries[0].target_id.as_str()), ("config", tenant.config.as_str()));
    }

    async fn an_edit_that_is_not_allowed_sees_the_draft_as_it_is_and_changes_nothing(world) {
        let tenant = world.tenant("acme").await;
        let draft = draft(&world, &tenant, &[("manifest.json", "{}")]).await;
        put(&world, &draft, "a.py", "1").await;
        let file = upload(&world, &draft, "a.py", "2").await;
        let place = (&draft.workspace_id, &draft.config_id, &draft.id);
        let refused = world
            .store
            .edit_draft(place, Edit::Put(file.clone()), &actor("editor"), |draft, files| {
                assert_eq!((draft.revision, files.len()), (2, 2));
                Err("no")
            })
            .await;
        assert_eq!(refused.expect("an answer").expect("it is there").expect_err("refused"), "no");
        assert_eq!(files(&world, &draft).await, of(&[("a.py", "1"), ("manifest.json", "{}")]));
        assert_eq!(now(&world, &draft).await.revision, 2);
        assert!(loose(&world).await.is_empty(), "an upload that goes on is not swept");
        world.store.abort_draft_file(&file.id).await.expect("given up");
        assert_eq!(loose(&world).await, BTreeSet::from([file.id]));
        let foreign = world.tenant("other").await;
        for (workspace, config) in [(&foreign.workspace, &draft.config_id), (&draft.workspace_id, &foreign.config)] {
            let edit = Edit::Remove("a.py".into());
            let by = actor("thief");
            let edited = world.store.edit_draft((workspace, config, &draft.id), edit, &by, |_, _| Ok::<_, ()>(()));
            assert!(edited.await.expect("an answer").is_none());
            assert!(!world.store.delete_draft(workspace, config, &draft.id, &actor("thief")).await.expect("an answer"));
            assert!(world.store.draft(workspace, config, &draft.id).await.expect("an answer").is_none());
        }
        assert_eq!(files(&world, &draft).await.len(), 2);
    }

    async fn writers_at_once_lose_nothing_and_one_of_those_who_expect_the_same_wins(world) {
        let tenant = world.tenant("acme").await;
        let draft = draft(&world, &tenant, &[("manifest.json", "{}")]).await;
        let other = world.another().await;
        let mut calls = Vec::new();
        for turn in 0..16 {
            let store = if turn % 2 == 0 { world.store.clone() } else { other.clone() };
            let own = upload(&world, &draft, &format!("own/{turn}.py"), "x").await;
            let shared = upload(&world, &draft, "manifest.json", &format!("{{\"turn\": {turn}}}")).await;
            let (draft, expected) = (draft.clone(), sha("{}"));
            calls.push(tokio::spawn(async move {
                let place = (&draft.workspace_id, &draft.config_id, &draft.id);
                let by = actor("editor");
                store.edit_draft(place, Edit::Put(own), &by, |_, _| Ok::<_, ()>(())).await.expect("an answer");
                let id = shared.id.clone();
                let won = store.edit_draft(place, Edit::Put(shared), &by, |_, files| {
                    let current = files.iter().find(|file| file.path == "manifest.json");
                    if current.is_some_and(|file| file.sha256 == expected) { Ok(()) } else { Err(()) }
                });
                let won = won.await.expect("an answer").expect("it is there").is_ok();
                if !won {
                    store.abort_draft_file(&id).await.expect("given up");
                }
                won
            }));
        }
        let mut winners = 0;
        for call in calls {
            winners += usize::from(call.await.expect("no panic"));
        }
        assert_eq!(winners, 1);
        let after = now(&world, &draft).await;
        assert_eq!((after.revision, after.files), (1 + 16 + 1, 17));
        assert_eq!(loose(&world).await.len(), 15, "what lost, and what was in a package is in it");
    }

    async fn a_draft_is_published_as_it_was_looked_at_or_not_at_all(world) {
        let tenant = world.tenant("acme").await;
        let by = actor("editor");
        let draft = draft(&world, &tenant, &[("manifest.json", "{}"), ("a.py", "a")]).await;
        let written = put(&world, &draft, "a.py", "b").await.after.expect("a file");
        let (seen, new) = (now(&world, &draft).await, package(number()));
        put(&world, &draft, "c.py", "c").await;
        let refused = world.store.publish_draft(&seen, &new, &by).await.expect("an answer").expect_err("refused");
        assert_eq!(refused, Blocked::Changed(3));
        assert_eq!(world.count("SELECT count(*) FROM config_versions").await, 1);
        let before = files(&world, &draft).await;
        let seen = now(&world, &draft).await;
        let Ok(Published::New(version)) = world.store.publish_draft(&seen, &new, &by).await.expect("an answer") else {
            panic!("a new one")
        };
        assert_eq!(version.number, 2);
        let after = now(&world, &draft).await;
        assert_eq!((after.revision, after.base_version_id.as_ref()), (3, Some(&version.id)));
        assert_eq!(files(&world, &draft).await, before);
        // Its contents are in the version's package now, and their blobs go.
        let rows = world.store.draft_files(&draft.id).await.expect("files");
        let first = world.store.version(&tenant.workspace, &tenant.version).await.expect("an answer").expect("it is there");
        for row in rows {
            let expected = if row.path == "manifest.json" { &first.package_sha256 } else { &version.package_sha256 };
            assert_eq!(row.package_sha256.as_ref(), Some(expected), "{}", row.path);
        }
        assert_eq!(loose(&world).await.len(), 2);
        assert!(loose(&world).await.contains(&written.id));
        // Once more is no twin.
        let again = world.store.publish_draft(&after, &new, &by).await.expect("an answer");
        assert!(matches!(again, Ok(Published::Unchanged(same)) if same.id == version.id));
        let entries = world.store.history(&tenant.config, None, 9).await.expect("entries");
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].detail["draft_id"], json!(draft.id));
        world.store.archive_config(&tenant.workspace, &tenant.config, true, &by).await.expect("an answer").expect("archived");
        let refused = world.store.publish_draft(&after, &package(number()), &by).await.expect("an answer");
        assert_eq!(refused.expect_err("refused"), Blocked::Archived);
    }

    async fn a_deleted_draft_leaves_nothing_but_what_is_swept(world) {
        let tenant = world.tenant("acme").await;
        let (draft, kept) = (draft(&world, &tenant, &[("manifest.json", "{}")]).await, draft(&world, &tenant, &[]).await);
        let mut written = BTreeSet::new();
        for path in ["a.py", "b.py"] {
            written.insert(put(&world, &draft, path, path).await.after.expect("a file").id);
        }
        put(&world, &kept, "a.py", "a").await;
        let going_on = upload(&world, &draft, "c.py", "c").await;
        let by = actor("editor");
        assert!(world.store.delete_draft(&tenant.workspace, &tenant.config, &draft.id, &by).await.expect("an answer"));
        assert!(!world.store.delete_draft(&tenant.workspace, &tenant.config, &draft.id, &by).await.expect("an answer"));
        assert!(world.store.draft(&tenant.workspace, &tenant.config, &draft.id).await.expect("an answer").is_none());
        assert_eq!(loose(&world).await, written);
        assert!(edit(&world, &draft, Edit::Put(going_on.clone())).await.is_none());
        world.store.abort_draft_file(&going_on.id).await.expect("given up");
        for id in loose(&world).await {
            world.store.forget_draft_file(&id).await.expect("forgotten");
        }
        assert_eq!(world.count("SELECT count(*) FROM draft_files").await, 1, "the other draft's");
        assert_eq!(files(&world, &kept).await, of(&[("a.py", "a")]));
        let entries = world.store.audit(&AuditFilter { actions: vec!["draft.delete".into()], ..AuditFilter::default() }, 9).await;
        assert_eq!(entries.expect("entries").entries[0].detail["before"], json!({"title": "a draft", "revision": 3}));
    }

    async fn uploads_that_were_cut_off_are_swept_and_what_is_in_use_never_is(world) {
        let tenant = world.tenant("acme").await;
        let draft = draft(&world, &tenant, &[("manifest.json", "{}")]).await;
        let used = put(&world, &draft, "a.py", "a").await.after.expect("a file");
        let cut_off = upload(&world, &draft, "b.py", "b").await;
        for id in [&used.id, &cut_off.id] {
            world.store.forget_draft_file(id).await.expect("an answer");
        }
        world.store.abort_draft_file(&used.id).await.expect("an answer");
        assert!(loose(&world).await.is_empty());
        assert_eq!(world.store.abort_draft_uploads().await.expect("an answer"), 1);
        assert_eq!(loose(&world).await, BTreeSet::from([cut_off.id]));
        assert_eq!(files(&world, &draft).await.len(), 2);
    }

    async fn a_workspace_has_so_many_drafts_and_a_neighbour_its_own(world) {
        let (tenant, neighbour) = (world.tenant("acme").await, world.tenant("other").await);
        let other = world.another().await;
        let calls = (0..8).map(|turn| {
            let store = if turn % 2 == 0 { world.store.clone() } else { other.clone() };
            let new = NewDraft {
                config_id: tenant.config.clone(),
                workspace_id: tenant.workspace.clone(),
                title: "x".into(),
                base: None,
                files: Vec::new(),
            };
            tokio::spawn(async move { store.create_draft(&new, 3, &actor("editor")).await.expect("an answer") })
        });
        let mut made = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            match call.await.expect("no panic") {
                Ok(draft) => made.push(draft),
                Err(blocked) => assert_eq!(blocked, Blocked::Full(3)),
            }
        }
        assert_eq!(made.len(), 3);
        draft(&world, &neighbour, &[]).await;
        let by = actor("editor");
        world.store.delete_draft(&tenant.workspace, &tenant.config, &made[0].id, &by).await.expect("deleted");
        let fourth = try_draft(&world, &tenant, &[], 3).await.expect("there is room again");
        let listed = world.store.drafts(&tenant.config, None, 2).await.expect("drafts");
        assert_eq!((listed.len(), &listed[0].id), (2, &fourth.id));
        let rest = world.store.drafts(&tenant.config, Some(listed[1].id.as_str()), 9).await.expect("drafts");
        assert_eq!(rest.len(), 1);
        let nowhere = Tenant { config: ConfigId::generate(), ..tenant.clone() };
        assert_eq!(try_draft(&world, &nowhere, &[], 9).await.expect_err("none"), Blocked::Gone);
        let foreign = Tenant { config: neighbour.config.clone(), ..tenant.clone() };
        assert_eq!(try_draft(&world, &foreign, &[], 9).await.expect_err("none"), Blocked::Gone);
        assert!(world.store.draft(&tenant.workspace, &tenant.config, &DraftId::generate()).await.expect("an answer").is_none());
    }

    async fn a_change_of_a_draft_whose_entry_cannot_be_written_does_not_happen(world) {
        let tenant = world.tenant("acme").await;
        let draft = draft(&world, &tenant, &[("manifest.json", "{}")]).await;
        let file = upload(&world, &draft, "a.py", "a").await;
        world.sql("ALTER TABLE audit RENAME TO gone").await;
        let (by, place) = (actor("editor"), (&draft.workspace_id, &draft.config_id, &draft.id));
        world.store.edit_draft(place, Edit::Put(file), &by, |_, _| Ok::<_, ()>(())).await.expect_err("no audit");
        world.store.delete_draft(place.0, place.1, place.2, &by).await.expect_err("no audit");
        world.store.publish_draft(&draft, &package(number()), &by).await.expect_err("no audit");
        assert_eq!(now(&world, &draft).await.revision, 1);
        assert_eq!(files(&world, &draft).await, of(&[("manifest.json", "{}")]));
    }
}
