//! `api-gateway-service`: the monthly volume report, from the trades of both files to a PDF and a mail.

mod pdf;
mod sheet;
mod totals;

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::{
    NowFn, Settings,
    database::Database,
    error::ServiceError,
    files::write_whole,
    mail::{Mail, not_delivered},
    parameters::Parameters,
    periods,
    service::Service,
    volume_report::totals::{Dimension, Volumes},
};

pub(crate) const NAME: &str = "api-gateway-service";
const ACTIONS: [&str; 1] = ["generate_volume_stats"];
const RECIPIENTS_DEFAULT: [&str; 1] = ["reports@marketprism.example"];

/// The service: it reads both files and writes neither.
pub(crate) struct VolumeReport {
    database: Database,
    data_dir: PathBuf,
    now: NowFn,
}

impl VolumeReport {
    pub(crate) fn open(settings: &Settings) -> anyhow::Result<Self> {
        let database = Database::open_market_to_read(&settings.data_dir)?;
        Ok(Self { database, data_dir: settings.data_dir.clone(), now: settings.now.clone() })
    }

    fn generate_volume_stats(&self, mut parameters: Parameters) -> Result<Value, ServiceError> {
        let now = (self.now)();
        let rule = "last_month, this_month or a month such as 2026-01";
        let month =
            parameters.parsed("period", rule, Some("last_month"), |text| periods::month(text, now))?;
        let dimensions = parameters.choices("breakdown", &Dimension::NAMES)?;
        parameters.choice("format", &["pdf"], "pdf")?;
        let delivery = parameters.choice("delivery", &["email", "none"], "email")?;
        let recipients = parameters.addresses("recipients", &RECIPIENTS_DEFAULT)?;
        parameters.finish()?;

        // In the report's own order, whatever order was asked for: one month, one file, whoever asks.
        let dimensions: Vec<Dimension> =
            Dimension::ALL.into_iter().filter(|dimension| dimensions.contains(&dimension.name())).collect();
        let volumes = Volumes::read(&mut self.database.lock(), &month)?;
        let sheet = sheet::lay_out(&volumes, &month, &dimensions, now);
        let pages = sheet.pages();
        let bytes = sheet.into_pdf();

        let kinds: Vec<&str> = dimensions.iter().map(|dimension| dimension.name()).collect();
        let name = format!("volume-{}-by-{}", month.name, kinds.join("-"));
        let path = self.data_dir.join("reports").join(format!("{name}.pdf"));
        write_whole(&path, &bytes)?;

        let total = volumes.total();
        let rows: Map<String, Value> = dimensions
            .iter()
            .map(|dimension| (dimension.name().to_owned(), json!(volumes.by(&[*dimension]).len())))
            .collect();
        let mut answer = json!({
            "report": path.display().to_string(),
            "format": "pdf",
            "pages": pages,
            "bytes": bytes.len(),
            "period": { "name": month.name, "from": periods::written(month.from), "to": periods::written(month.to) },
            "timezone": periods::ZONE.name(),
            "total_volume": total.turnover,
            "unit": "USDT",
            "trades": total.trades,
            "first_trade": volumes.first_ts.map(periods::written_ms),
            "last_trade": volumes.last_ts.map(periods::written_ms),
            "rows": rows,
            "detail_rows": volumes.by(&dimensions).len(),
        });
        answer["delivery"] = if delivery == "email" {
            let mail = Mail {
                from: "api-gateway-service@marketprism.example",
                recipients: &recipients,
                subject: &format!("Trade volumes of {}", month.name),
                text: &format!(
                    "Trade volumes of {}: {} USDT in {} trades, {pages} pages.",
                    month.name,
                    sheet::money(total.turnover),
                    total.trades
                ),
                report: (&path, "application/pdf"),
            };
            not_delivered(&mail.put(&self.data_dir, &name, now)?, &recipients)
        } else {
            json!({ "delivered": false, "reason": "not asked for" })
        };
        Ok(answer)
    }
}

impl Service for VolumeReport {
    fn name(&self) -> &'static str {
        NAME
    }

    fn act(&self, action: &str, parameters: Parameters) -> Result<Value, ServiceError> {
        match action {
            "generate_volume_stats" => self.generate_volume_stats(parameters),
            _ => Err(ServiceError::unknown_action(NAME, action, &ACTIONS)),
        }
    }

    fn check(&self) -> Result<(), ServiceError> {
        self.database.check(
            "SELECT EXISTS (SELECT 1 FROM main.trade_history) + EXISTS (SELECT 1 FROM cold.trade_history)",
        )
    }
}
