//! Who is next: priorities, lanes, bounds, and fair shares.

use crate::harness::{Tenant, World, actor};
use ade::queue::{JobState, PRIORITY_STEP_MS};
use ade::store::{Submission, WorkspaceChange};
use std::collections::{BTreeMap, BTreeSet};

async fn with_priority(world: &World, tenant: &Tenant, priority: i64) -> ade::store::JobRow {
    world.submit(Submission { priority, ..tenant.submission() }).await
}

/// How many of `count` claims, made `slots` at a time, each tenant gets.
async fn shares(world: &World, tenants: &[Tenant], count: usize, slots: usize) -> Vec<usize> {
    let mut got = vec![0; tenants.len()];
    for _ in 0..count / slots {
        let claimed = world.claim(slots).await;
        assert_eq!(claimed.len(), slots, "enough is waiting");
        for claimed in claimed {
            let at = tenants.iter().position(|tenant| tenant.workspace == claimed.job.workspace_id);
            got[at.expect("one of them")] += 1;
        }
    }
    got
}

on_both! {
    async fn a_claim_starts_the_next_execution_with_a_lease(world) {
        let tenant = world.tenant("acme").await;
        let job = world.submit(tenant.submission()).await;
        let claimed = world.claim(3).await;
        assert_eq!(claimed.len(), 1);
        let (claimed, version) = (&claimed[0], world.store.version(&tenant.workspace, &tenant.version).await);
        let version = version.expect("an answer").expect("a version");
        assert_eq!((claimed.job.id.clone(), claimed.job.execution, claimed.job.state), (job.id, 1, JobState::Running));
        assert_eq!((claimed.package_sha256.as_str(), claimed.version_number), (version.package_sha256.as_str(), 1));
        assert_eq!(claimed.job.node_id.as_ref(), Some(&world.node));
        assert_eq!(world.counters(&tenant).await, (0, 1));
        assert!(world.claim(3).await.is_empty());
    }

    async fn priority_orders_a_workspace_and_long_waiting_beats_it(world) {
        let tenant = world.tenant("acme").await;
        let low = with_priority(&world, &tenant, -10).await;
        let normal = with_priority(&world, &tenant, 0).await;
        let high = with_priority(&world, &tenant, 10).await;
        assert_eq!(world.store.queue_position(&high).await.expect("a place"), 1);
        assert_eq!(world.store.queue_position(&low).await.expect("a place"), 3);
        assert_eq!(world.claim_one().await.id, high.id);
        assert_eq!(world.claim_one().await.id, normal.id);
        world.age(&low, 20 * PRIORITY_STEP_MS + 1_000).await;
        with_priority(&world, &tenant, 10).await;
        assert_eq!(world.claim_one().await.id, low.id, "it waited longer than twenty steps are worth");
    }

    async fn a_lane_at_its_bound_waits_and_the_other_lanes_go_on(world) {
        let narrow = world.tenant("acme").await;
        let (config, version) = world.config(&narrow.workspace, "wide").await;
        let wide = Tenant { config, version, ..narrow.clone() };
        world.store.bound_config(&narrow.workspace, &narrow.config, Some(2), &actor("root")).await.expect("bounded");
        world.submit_many(&narrow.submissions(5)).await;
        world.submit_many(&wide.submissions(3)).await;
        let claimed = world.claim(10).await;
        let of_narrow: Vec<_> = claimed.iter().filter(|claimed| claimed.job.config_id == narrow.config).collect();
        assert_eq!((claimed.len(), of_narrow.len()), (5, 2));
        assert!(world.claim(10).await.is_empty());
        assert!(world.finish(&of_narrow[0].job, JobState::Succeeded).await);
        assert_eq!(world.claim(10).await.len(), 1);
    }

    async fn a_workspace_at_its_bound_waits_and_the_others_go_on(world) {
        let (bounded, free) = (world.tenant("bounded").await, world.tenant("free").await);
        world.change(&bounded, WorkspaceChange { max_running: Some(Some(1)), ..WorkspaceChange::default() }).await;
        world.submit_many(&bounded.submissions(4)).await;
        world.submit_many(&free.submissions(4)).await;
        let claimed = world.claim(10).await;
        assert_eq!(claimed.len(), 5);
        assert_eq!(world.counters(&bounded).await, (3, 1));
        let mut strict = world.defaults;
        strict.workspace_max_running = 4;
        world.submit_many(&free.submissions(1)).await;
        assert!(world.store.claim(&world.node, 9, &strict).await.expect("a claim").is_empty(), "the setting bounds too");
        world.change(&free, WorkspaceChange { max_running: Some(Some(0)), ..WorkspaceChange::default() }).await;
        assert_eq!(world.store.claim(&world.node, 9, &strict).await.expect("a claim").len(), 1, "0 is no bound");
    }

    async fn many_workspaces_with_all_lanes_full_do_not_hide_one_that_can_run(world) {
        for place in 0..40 {
            let tenant = world.tenant(&format!("full-{place}")).await;
            world.store.bound_config(&tenant.workspace, &tenant.config, Some(0), &actor("root")).await.expect("bounded");
            world.submit(tenant.submission()).await;
        }
        let last = world.tenant("last").await;
        let job = world.submit(last.submission()).await;
        assert_eq!(world.claim(5).await.iter().map(|claimed| claimed.job.id.clone()).collect::<Vec<_>>(), [job.id]);
    }

    async fn a_paused_workspace_waits_and_gets_no_credit_for_it(world) {
        let (paused, other) = (world.tenant("paused").await, world.tenant("other").await);
        world.submit_many(&paused.submissions(60)).await;
        world.submit_many(&other.submissions(200)).await;
        let pause = |on| WorkspaceChange { paused: Some(on), ..WorkspaceChange::default() };
        world.change(&paused, pause(true)).await;
        let tenants = [paused.clone(), other];
        assert_eq!(shares(&world, &tenants, 100, 10).await, [0, 100]);
        world.change(&paused, pause(false)).await;
        let got = shares(&world, &tenants, 20, 1).await;
        assert!(got[0].abs_diff(10) <= 1, "half each from here on, not what it missed: {got:?}");
    }

    async fn a_workspace_that_was_at_its_bound_gets_no_credit_for_it(world) {
        let (bounded, other) = (world.tenant("bounded").await, world.tenant("other").await);
        world.change(&bounded, WorkspaceChange { max_running: Some(Some(1)), ..WorkspaceChange::default() }).await;
        world.submit_many(&bounded.submissions(60)).await;
        world.submit_many(&other.submissions(200)).await;
        let tenants = [bounded.clone(), other];
        assert_eq!(shares(&world, &tenants, 100, 10).await, [1, 99]);
        world.change(&bounded, WorkspaceChange { max_running: Some(Some(0)), ..WorkspaceChange::default() }).await;
        let got = shares(&world, &tenants, 20, 1).await;
        assert!(got[0].abs_diff(10) <= 1, "half each from here on: {got:?}");
    }

    async fn shares_follow_the_weights_to_five_percent(world) {
        let mut tenants = Vec::new();
        for weight in [100, 200, 700] {
            let tenant = world.weighted(&format!("w{weight}"), weight).await;
            world.submit_many(&tenant.submissions(800)).await;
            tenants.push(tenant);
        }
        let got = shares(&world, &tenants, 1_000, 20).await;
        for (got, wanted) in got.iter().zip([100_usize, 200, 700]) {
            assert!(got.abs_diff(wanted) * 20 <= wanted, "{got} of {wanted}");
        }
    }

    async fn a_workspace_that_was_idle_gets_no_credit_for_it(world) {
        let (idle, busy) = (world.tenant("idle").await, world.tenant("busy").await);
        world.submit_many(&idle.submissions(1)).await;
        world.submit_many(&busy.submissions(300)).await;
        let tenants = [idle.clone(), busy];
        let before = shares(&world, &tenants, 200, 20).await;
        assert_eq!(before, [1, 199], "it ran one job and had nothing more");
        world.submit_many(&idle.submissions(50)).await;
        let got = shares(&world, &tenants, 20, 1).await;
        assert!(got[0].abs_diff(10) <= 1, "half each from here on: {got:?}");
    }

    async fn five_thousand_waiting_jobs_delay_a_newcomer_by_at_most_one_claim(world) {
        let noisy = world.tenant("noisy").await;
        world.submit_many(&noisy.submissions(5_000)).await;
        world.claim(20).await;
        let newcomer = world.tenant("newcomer").await;
        let job = world.submit(newcomer.submission()).await;
        let next: Vec<_> = world.claim(2).await.into_iter().map(|claimed| claimed.job.id).collect();
        assert!(next.contains(&job.id), "at most one goes before it");
    }

    async fn claimers_on_two_handles_get_every_job_exactly_once(world) {
        let other = world.another().await;
        let mut all = 0;
        for place in 0..5 {
            let tenant = world.tenant(&format!("t{place}")).await;
            world.submit_many(&tenant.submissions(60)).await;
            all += 60;
        }
        let tasks: Vec<_> = (0..16)
            .map(|task| {
                let store = if task % 2 == 0 { world.store.clone() } else { other.clone() };
                let defaults = world.defaults;
                let node = ade::ids::NodeId::generate();
                tokio::spawn(async move {
                    let mut mine = Vec::new();
                    loop {
                        let claimed = store.claim(&node, 1 + task % 4, &defaults).await.expect("a claim");
                        if claimed.is_empty() {
                            return mine;
                        }
                        mine.extend(claimed.into_iter().map(|claimed| (claimed.job.id, claimed.job.execution)));
                    }
                })
            })
            .collect();
        let mut seen = BTreeMap::new();
        for task in tasks {
            for (job, execution) in task.await.expect("no panic") {
                assert_eq!(execution, 1);
                assert!(seen.insert(job.clone(), execution).is_none(), "{job} was handed out twice");
            }
        }
        assert_eq!(seen.len(), all);
    }

    async fn a_position_counts_the_jobs_before_it_in_all_lanes(world) {
        let tenant = world.tenant("acme").await;
        let (config, version) = world.config(&tenant.workspace, "second").await;
        let second = Tenant { config, version, ..tenant.clone() };
        let first = world.submit(tenant.submission()).await;
        world.age(&first, 5_000).await;
        let other = world.submit(second.submission()).await;
        world.age(&other, 2_000).await;
        let last = world.submit(tenant.submission()).await;
        for (job, place) in [(&first, 1), (&other, 2), (&last, 3)] {
            assert_eq!(world.store.queue_position(&world.job(job).await).await.expect("a place"), place);
        }
        let stranger = world.tenant("stranger").await;
        let alone = world.submit(stranger.submission()).await;
        assert_eq!(world.store.queue_position(&alone).await.expect("a place"), 1, "others' queues are not in it");
        world.submit_many(&tenant.submissions(1_100)).await;
        let far = world.submit(Submission { priority: -10, ..tenant.submission() }).await;
        assert_eq!(world.store.queue_position(&far).await.expect("a place"), 1_000, "and no further is counted");
    }

    async fn the_deepest_queues_say_how_long_people_have_waited_whatever_the_priority(world) {
        let (deep, flat) = (world.tenant("deep").await, world.tenant("flat").await);
        for _ in 0..3 {
            with_priority(&world, &deep, 10).await;
        }
        let job = world.submit(flat.submission()).await;
        world.age(&job, 90_000).await;
        let queues = world.store.deepest_queues(5).await.expect("queues");
        let found: BTreeSet<_> = queues.iter().map(|(workspace, _)| workspace.queued).collect();
        assert_eq!((queues[0].0.id.clone(), found), (deep.workspace, BTreeSet::from([1, 3])));
        assert!(queues[0].1 < 60_000, "they were submitted just now, not {} ms ago", queues[0].1);
        assert!(queues[1].1 >= 90_000);
        assert_eq!(world.store.live_counts().await.expect("counts"), (4, 0));
    }
}
