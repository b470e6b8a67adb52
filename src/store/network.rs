//! The network policy's stored layers.

use super::Store;
use super::db::{Result, args};
use crate::ids::ConfigId;
use crate::network::Stored;

impl Store {
    /// All layers that are stored for a config, in one read; `None` when there is none.
    ///
    /// # Errors
    /// The database's.
    pub async fn network_of(&self, config: &ConfigId) -> Result<Option<Stored>> {
        let sql = "SELECT (SELECT network_switch FROM instance) AS network_switch, w.network AS workspace, \
                   c.network AS package, c.allowed_hosts, c.source_builds \
                   FROM configs c JOIN workspaces w ON w.id = c.workspace_id WHERE c.id = $1";
        let Some(row) = self.db.fetch_one(sql, args![config]).await? else { return Ok(None) };
        Ok(Some(Stored {
            instance: row.opt_parsed("network_switch")?,
            workspace: row.parsed("workspace")?,
            package: row.parsed("package")?,
            allowed_hosts: row.json("allowed_hosts")?,
            source_builds: row.flag("source_builds")?,
        }))
    }
}
