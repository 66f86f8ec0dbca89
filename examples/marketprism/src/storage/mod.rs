//! `data-storage-service`: the life of market data in the hot and the cold file.

mod anomalies;
mod archive;
mod cleanup;
mod optimize;

use std::path::PathBuf;

use serde_json::Value;

use crate::{
    NowFn, Settings, database::Database, error::ServiceError, parameters::Parameters, service::Service,
};

pub(crate) const NAME: &str = "data-storage-service";
const ACTIONS: [&str; 4] =
    ["archive_hot_data", "cleanup_expired_data", "optimize_tables", "detect_anomalies"];

/// The service: one connection to both files.
pub(crate) struct Storage {
    database: Database,
    data_dir: PathBuf,
    now: NowFn,
}

impl Storage {
    pub(crate) fn open(settings: &Settings) -> anyhow::Result<Self> {
        let database = Database::open_market(&settings.data_dir)?;
        Ok(Self { database, data_dir: settings.data_dir.clone(), now: settings.now.clone() })
    }
}

impl Service for Storage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn act(&self, action: &str, parameters: Parameters) -> Result<Value, ServiceError> {
        match action {
            "archive_hot_data" => archive::archive_hot_data(&self.database, parameters, (self.now)()),
            "cleanup_expired_data" => cleanup::cleanup_expired_data(&self.database, parameters, (self.now)()),
            "optimize_tables" => optimize::optimize_tables(&self.database, parameters),
            "detect_anomalies" => {
                anomalies::detect_anomalies(&self.database, &self.data_dir, parameters, (self.now)())
            }
            _ => Err(ServiceError::unknown_action(NAME, action, &ACTIONS)),
        }
    }

    fn check(&self) -> Result<(), ServiceError> {
        self.database
            .check("SELECT EXISTS (SELECT 1 FROM main.market_data) + EXISTS (SELECT 1 FROM cold.market_data)")
    }
}
