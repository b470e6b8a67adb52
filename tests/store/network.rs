//! The stored layers of the network policy, and the audit of their changes.

use crate::harness::actor;
use ade::ids::{ConfigId, WorkspaceId};
use ade::network::{Access, HostPattern, Switch};
use ade::store::{AuditFilter, ConfigNetworkChange};
use serde_json::json;

/// Entries of the network policy.
fn changes() -> AuditFilter {
    AuditFilter { actions: vec!["network.set".into()], ..AuditFilter::default() }
}

fn hosts(texts: &[&str]) -> Vec<HostPattern> {
    texts.iter().map(|text| text.parse().expect("a pattern")).collect()
}

on_both! {
    async fn every_layer_is_read_back_as_it_was_set_and_each_change_has_its_entry(world) {
        let (tenant, neighbour) = (world.tenant("acme").await, world.tenant("other").await);
        let fresh = world.store.network_of(&tenant.config).await.expect("an answer").expect("it is there");
        assert_eq!((fresh.instance, fresh.workspace, fresh.package), (None, Access::Inherit, Access::Inherit));
        assert!(fresh.allowed_hosts.is_empty() && !fresh.source_builds);

        let (root, second) = (actor("root"), actor("second"));
        let instance = world.store.set_network_switch(Some(Switch::Deny), &root).await.expect("set");
        assert_eq!(instance.network_switch, Some(Switch::Deny));
        let set = world.store.set_workspace_network(&tenant.workspace, Access::InstallOnly, &second).await;
        assert_eq!(set.expect("set").expect("it is there").network, Access::InstallOnly);
        let patterns = hosts(&["*.example.com:443", "2001:db8::1"]);
        let change = ConfigNetworkChange {
            access: Some(Access::Allow),
            allowed_hosts: Some(patterns.clone()),
            source_builds: Some(true),
        };
        let set = world.store.set_config_network(&tenant.workspace, &tenant.config, change, &root).await;
        assert_eq!(set.expect("set").expect("it is there").allowed_hosts, patterns);
        // What is not named stays.
        let change = ConfigNetworkChange { access: Some(Access::Deny), ..ConfigNetworkChange::default() };
        world.store.set_config_network(&tenant.workspace, &tenant.config, change, &root).await.expect("set");

        let all = world.another().await.network_of(&tenant.config).await.expect("an answer").expect("it is there");
        assert_eq!((all.instance, all.workspace), (Some(Switch::Deny), Access::InstallOnly));
        assert_eq!((all.package, all.source_builds), (Access::Deny, true));
        assert_eq!(all.allowed_hosts, patterns);
        let beside = world.store.network_of(&neighbour.config).await.expect("an answer").expect("it is there");
        assert_eq!((beside.instance, beside.workspace, beside.package), (Some(Switch::Deny), Access::Inherit, Access::Inherit));

        let entries = world.store.audit(&changes(), 10).await.expect("entries").entries;
        assert_eq!(entries.len(), 4);
        assert!(entries.iter().all(|entry| entry.action == "network.set"));
        assert!(entries.is_sorted_by(|a, b| a.id > b.id && a.at >= b.at));
        let last = &entries[0];
        let written = json!(["*.example.com:443", "[2001:db8::1]"]);
        assert_eq!(
            last.detail,
            json!({
                "before": {"access": "allow", "allowed_hosts": written, "source_builds": true},
                "after": {"access": "deny", "allowed_hosts": written, "source_builds": true},
            })
        );
        assert_eq!((&last.actor_id, last.actor_name.as_str(), last.request_id.as_str()), (&root.key_id, "root", "request-of-root"));
        assert_eq!((last.target_kind.as_str(), last.target_id.as_str()), ("config", tenant.config.as_str()));
        assert_eq!((entries[2].actor_name.as_str(), entries[2].target_kind.as_str()), ("second", "workspace"));
        assert_eq!(entries[2].workspace_id.as_ref(), Some(&tenant.workspace));
        let first = &entries[3];
        assert_eq!((first.target_kind.as_str(), first.workspace_id.as_ref()), ("instance", None));
        assert_eq!(first.detail, json!({"before": {"switch": null}, "after": {"switch": "deny"}}));
        world.store.set_network_switch(None, &root).await.expect("set");
        assert_eq!(world.store.instance().await.expect("an instance").network_switch, None);
    }

    async fn what_changes_nothing_or_is_not_there_leaves_no_entry(world) {
        let tenant = world.tenant("acme").await;
        let neighbour = world.tenant("other").await;
        let by = actor("root");
        world.store.set_network_switch(None, &by).await.expect("set");
        world.store.set_workspace_network(&tenant.workspace, Access::Inherit, &by).await.expect("set");
        let same = ConfigNetworkChange { source_builds: Some(false), ..ConfigNetworkChange::default() };
        world.store.set_config_network(&tenant.workspace, &tenant.config, same, &by).await.expect("set");
        let deny = ConfigNetworkChange { access: Some(Access::Deny), ..ConfigNetworkChange::default() };
        let (nobody, nothing) = (WorkspaceId::generate(), ConfigId::generate());
        assert!(world.store.set_workspace_network(&nobody, Access::Deny, &by).await.expect("an answer").is_none());
        for (workspace, config) in [(&tenant.workspace, &nothing), (&neighbour.workspace, &tenant.config)] {
            let set = world.store.set_config_network(workspace, config, deny.clone(), &by).await;
            assert!(set.expect("an answer").is_none());
        }
        assert!(world.store.network_of(&nothing).await.expect("an answer").is_none());
        let kept = world.store.network_of(&tenant.config).await.expect("an answer").expect("it is there");
        assert_eq!(kept.package, Access::Inherit);
        assert!(world.store.audit(&changes(), 10).await.expect("entries").entries.is_empty());
    }

    async fn a_change_whose_entry_cannot_be_written_does_not_happen(world) {
        let tenant = world.tenant("acme").await;
        world.sql("ALTER TABLE audit RENAME TO gone").await;
        let by = actor("root");
        world.store.set_network_switch(Some(Switch::Off), &by).await.expect_err("no audit");
        world.store.set_workspace_network(&tenant.workspace, Access::Allow, &by).await.expect_err("no audit");
        let allow = ConfigNetworkChange { access: Some(Access::Allow), ..ConfigNetworkChange::default() };
        world.store.set_config_network(&tenant.workspace, &tenant.config, allow, &by).await.expect_err("no audit");
        let kept = world.store.network_of(&tenant.config).await.expect("an answer").expect("it is there");
        assert_eq!((kept.instance, kept.workspace, kept.package), (None, Access::Inherit, Access::Inherit));
    }

    async fn nobody_changes_or_deletes_an_entry(world) {
        world.store.set_network_switch(Some(Switch::Off), &actor("root")).await.expect("set");
        for sql in ["UPDATE audit SET actor_name = 'somebody else'", "DELETE FROM audit"] {
            let refusal = world.try_sql(sql).await.expect_err("refused").to_string();
            assert!(refusal.contains("append-only"), "{sql}: {refusal}");
        }
        assert_eq!(world.count("SELECT count(*) FROM audit WHERE actor_name = 'root'").await, 1);
    }

    async fn the_audit_is_paged_and_filtered(world) {
        let (tenant, neighbour) = (world.tenant("acme").await, world.tenant("other").await);
        let by = actor("root");
        for turn in 0..3 {
            for id in [&tenant.workspace, &neighbour.workspace] {
                let access = if turn % 2 == 0 { Access::Deny } else { Access::Allow };
                world.store.set_workspace_network(id, access, &by).await.expect("set");
            }
        }
        world.store.set_network_switch(Some(Switch::Deny), &by).await.expect("set");
        let list = async |filter: AuditFilter, limit| world.store.audit(&filter, limit).await.expect("entries").entries;
        let all = list(changes(), 100).await;
        assert_eq!(all.len(), 7);
        let own = AuditFilter { workspace_id: Some(tenant.workspace.clone()), ..changes() };
        let page = list(own.clone(), 2).await;
        let before = Some(page[1].id.to_string());
        let rest = list(AuditFilter { before, ..own.clone() }, 2).await;
        assert_eq!((page.len(), rest.len()), (2, 1));
        assert!(page.iter().chain(&rest).all(|entry| entry.workspace_id.as_ref() == Some(&tenant.workspace)));
        let other = AuditFilter { actions: vec!["keys.make".into()], ..AuditFilter::default() };
        assert!(list(other, 100).await.is_empty());
        let made = AuditFilter { actions: vec!["config.create".into()], ..own.clone() };
        assert_eq!(list(made, 100).await.len(), 1);
        let later = |ms| AuditFilter { created_after: Some(ms), ..changes() };
        assert_eq!(list(later(all[6].at - 1), 100).await.len(), 7);
        assert!(list(later(all[0].at), 100).await.is_empty());
    }
}
