//! What the tests ask of Docker directly, blocking.

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder,
    ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder, StartContainerOptions,
    UploadToContainerOptionsBuilder,
};
use futures_util::TryStreamExt;
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;

/// A connection to the same Docker Engine that `ade` uses.
pub struct Docker {
    runtime: Runtime,
    client: bollard::Docker,
}

impl Docker {
    /// Connects; panics when there is no Docker, since nothing here can be tested without.
    pub fn connect() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            match std::env::var("DOCKER_HOST") {
                Ok(host) if !host.is_empty() => bollard::Docker::connect_with_host(&host),
                _ => bollard::Docker::connect_with_local_defaults(),
            }
        });
        Self { runtime, client: client.expect("these tests need Docker") }
    }

    /// Containers of a job, by their names, running or not.
    pub fn containers_of(&self, job_id: &str) -> Vec<ContainerSummary> {
        let name = format!("^/?ade-{}-", job_id.to_lowercase().replace('_', "-"));
        let filters = HashMap::from([("name".to_owned(), vec![name])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        self.runtime.block_on(self.client.list_containers(Some(options))).expect("Docker lists containers")
    }

    /// What Docker has done with the containers of a job since then, such as `start` and `die`, in order. It keeps what it did last.
    pub fn actions_of(&self, job_id: &str, since: SystemTime) -> Vec<String> {
        let at = |time: SystemTime| {
            let time = time.duration_since(UNIX_EPOCH).unwrap();
            format!("{}.{:09}", time.as_secs(), time.subsec_nanos())
        };
        let filters = HashMap::from([("label", vec![format!("dev.ade.job={job_id}")])]);
        let options =
            EventsOptionsBuilder::default().since(&at(since)).until(&at(SystemTime::now())).filters(&filters).build();
        let events: Vec<_> =
            self.runtime.block_on(self.client.events(Some(options)).try_collect()).expect("Docker tells what it did");
        events.into_iter().filter_map(|event| event.action).collect()
    }

    /// Containers of an installation, running or not.
    pub fn containers_of_instance(&self, instance: &str) -> Vec<ContainerSummary> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("dev.ade.instance={instance}")])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        self.runtime.block_on(self.client.list_containers(Some(options))).expect("Docker lists containers")
    }

    /// Removes what containers an instance has left; one that Docker was still making comes a moment later.
    pub fn remove_of_instance(&self, instance: &str) {
        let filters = HashMap::from([("label".to_owned(), vec![format!("dev.ade.instance={instance}")])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        for round in 0..3 {
            let left = self.runtime.block_on(self.client.list_containers(Some(options.clone()))).unwrap_or_default();
            if left.is_empty() && round > 0 {
                return;
            }
            for container in &left {
                self.remove(container.id.as_deref().unwrap_or_default());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// Names of the volumes with a label, written `name=value`.
    pub fn volumes_with(&self, label: &str) -> Vec<String> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let listed = self.runtime.block_on(self.client.list_volumes(Some(options))).expect("Docker lists volumes");
        listed.volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect()
    }

    /// Names of the containers that have a volume, running or not.
    pub fn users_of(&self, volume: &str) -> Vec<String> {
        let filters = HashMap::from([("volume".to_owned(), vec![volume.to_owned()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.runtime.block_on(self.client.list_containers(Some(options))).unwrap_or_default();
        let name = |container: ContainerSummary| Some(container.names?.first()?.trim_start_matches('/').to_owned());
        listed.into_iter().filter_map(name).collect()
    }

    /// Removes a volume, and before it what containers still have it.
    pub fn remove_volume(&self, name: &str) {
        for container in self.users_of(name) {
            self.remove(&container);
        }
        let options = RemoveVolumeOptionsBuilder::default().force(true).build();
        self.runtime.block_on(self.client.remove_volume(name, Some(options))).ok();
    }

    /// Makes a volume and fills it from a tar archive, through a container that is never started.
    pub fn create_volume(&self, name: &str, image: &str, archive: Vec<u8>) {
        let container = format!("{name}-filler");
        let host = bollard::models::HostConfig { binds: Some(vec![format!("{name}:/job")]), ..Default::default() };
        let body = ContainerCreateBody {
            image: Some(image.into()),
            network_disabled: Some(true),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&container).build();
        let uploaded = self.runtime.block_on(async {
            self.client.create_container(Some(options), body).await.expect("Docker creates a container");
            let upload = UploadToContainerOptionsBuilder::default().path("/job").build();
            self.client.upload_to_container(&container, Some(upload), bollard::body_full(archive.into())).await
        });
        self.remove(&container);
        uploaded.expect("Docker unpacks files into a volume");
    }

    /// A container as Docker knows it; `None` when there is none of that name or id.
    pub fn inspect(&self, name: &str) -> Option<ContainerInspectResponse> {
        self.runtime.block_on(self.client.inspect_container(name, None)).ok()
    }

    /// Addresses of the host on Docker's own networks.
    pub fn gateways(&self) -> Vec<String> {
        let networks = self.runtime.block_on(self.client.list_networks(None)).unwrap();
        let configs = networks.into_iter().filter_map(|network| network.ipam?.config).flatten();
        configs.filter_map(|config| config.gateway).collect()
    }

    /// Whether a container runs.
    pub fn is_running(&self, name: &str) -> bool {
        self.inspect(name).and_then(|found| found.state).and_then(|state| state.running).unwrap_or(false)
    }

    /// Removes a container and its anonymous volumes, running or not.
    pub fn remove(&self, name: &str) {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        self.runtime.block_on(self.client.remove_container(name, Some(options))).ok();
    }

    /// Creates a container with these labels that has run and ended. It gets nothing to do and no network.
    pub fn create_ended(&self, name: &str, image: &str, labels: &[(&str, &str)]) {
        let body = ContainerCreateBody {
            image: Some(image.into()),
            network_disabled: Some(true),
            labels: Some(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        self.runtime.block_on(async {
            self.client.create_container(Some(options), body).await.expect("Docker creates a container");
            // Its stdin is closed, so the supervisor in it ends at once. A run next to this one may have reaped it already.
            self.client.start_container(name, None::<StartContainerOptions>).await.ok();
        });
    }

    /// The id of an image, if it is there.
    pub fn image_id(&self, reference: &str) -> Option<String> {
        self.runtime.block_on(self.client.inspect_image(reference)).ok()?.id
    }

    /// Makes `repository:tag` from `base` with a tar archive unpacked into `folder`; all else stays as in `base`.
    pub fn extend_image(&self, base: &str, archive: Vec<u8>, folder: &str, repository: &str, tag: &str) {
        let name = format!("ade-test-{}-{tag}", std::process::id());
        self.runtime.block_on(async {
            let body = ContainerCreateBody {
                image: Some(base.into()),
                network_disabled: Some(true),
                ..ContainerCreateBody::default()
            };
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            self.client.create_container(Some(options), body).await.expect("Docker creates a container");
            let upload = UploadToContainerOptionsBuilder::default().path(folder).build();
            let uploaded =
                self.client.upload_to_container(&name, Some(upload), bollard::body_full(archive.into())).await;
            let options = CommitContainerOptionsBuilder::default().container(&name).repo(repository).tag(tag).build();
            let committed = self.client.commit_container(options, bollard::models::ContainerConfig::default()).await;
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            self.client.remove_container(&name, Some(options)).await.ok();
            uploaded.expect("Docker unpacks files into a container that was never started");
            committed.expect("Docker makes an image of a container");
        });
    }
}
