//! The parts of the container network, as far as this router was asked to have them: started, joined to the API and the status.

use axum::Router;

use super::super::RunConfig;
use super::apps::Apps;
use super::planes::Planes;
use crate::api::section::Ask;
use crate::store::db::Db;

/// What the parts add to the API and the status.
#[derive(Default)]
pub struct Parts {
    /// Their pages.
    pub routes: Router,
    /// What they say of themselves.
    pub sections: Vec<Ask>,
}

impl Parts {
    /// Starts them.
    pub fn start(_config: &RunConfig, _db: &Db, _planes: &Planes, _apps: &mut Apps) -> Parts {
        Parts::default()
    }
}
