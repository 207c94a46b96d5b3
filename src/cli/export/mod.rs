//! `afterglow export`: samples and stacks as plain Parquet tables, for questions that are asked in SQL.
//!
//! The profiles come from the server as they were sent, a page of a search at a time and a few at once, are decoded here, and go into two
//! files: [`tables`] has their columns. A stack that occurs in many profiles is written once. What retention deletes between the search and
//! the fetch is counted and left out.

mod parquet_table;
mod tables;

use std::io::Write as _;
use std::path::PathBuf;

use afterglow_profile::Limits;
use afterglow_profile::decode::decode;
use afterglow_proto::v1::query_service_client::QueryServiceClient;
use afterglow_proto::v1::{GetProfileRequest, ProfileInfo, SearchRequest};
use anyhow::Context as _;
use futures::{StreamExt as _, stream};

use super::{Channel, Connection, SelectionArgs, refused, warn_incomplete};
use tables::Tables;

/// How many profiles a page of the search has.
const PAGE: u32 = 1_000;

/// How many profiles are fetched at once.
const FETCHES_MAX: usize = 8;

/// Writes the samples and stacks of all selected profiles as Parquet tables.
///
/// DIR/samples.parquet has a row for each sample and sample type whose value is not 0, with the profile's labels; DIR/stacks.parquet a
/// row for each frame of each distinct stack, leaf first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    afterglow export '{service=\"api\"}' --type cpu --from -1h -o api\n  \
    duckdb -c \"SELECT function, sum(value) AS self FROM 'api/samples.parquet' JOIN 'api/stacks.parquet' USING (stack)\n    \
    WHERE depth = 0 AND sample_type = 'cpu' GROUP BY function ORDER BY self DESC LIMIT 20\"")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    /// The folder to write into; it is made if need be, and files of an earlier export are replaced once the new ones are whole.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The most profiles, the newest first.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors
/// Says what the server refused, which profile could not be read, or which file could not be written.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut client = args.connection.query_client().await?;
    std::fs::create_dir_all(&args.output).with_context(|| format!("cannot make {}", args.output.display()))?;
    let mut tables = Tables::create(&args.output)?;
    let mut request =
        SearchRequest { selection: Some(args.selection.selection()), limit: PAGE, ..SearchRequest::default() };
    let mut left = args.limit;
    let (mut gone, mut is_partial) = (0, false);
    loop {
        request.limit = left.min(PAGE);
        let page = client.search(request.clone()).await.map_err(refused)?.into_inner();
        warn_incomplete(page.completeness.as_ref());
        is_partial |= page.completeness.is_some_and(|completeness| !completeness.problems.is_empty());
        left -= page.profiles.len() as u32;
        let mut fetched =
            stream::iter(page.profiles.into_iter().map(|info| fetch(client.clone(), info))).buffered(FETCHES_MAX);
        while let Some(profile) = fetched.next().await {
            let Some((info, pprof)) = profile? else {
                gone += 1;
                continue;
            };
            // It was taken under limits of the server's own.
            let profile = decode(&pprof, &Limits::UNLIMITED).with_context(|| format!("profile {}", info.id))?;
            tables.add(&info, &profile)?;
        }
        request.cursor = page.next_cursor;
        if request.cursor.is_empty() || left == 0 {
            break;
        }
    }
    let written = tables.finish()?;
    let mut err = std::io::stderr();
    writeln!(
        err,
        "{} profiles: {} rows in {}, {} frames of {} stacks in {}",
        written.profiles,
        written.samples,
        args.output.join(tables::SAMPLES).display(),
        written.frames,
        written.stacks,
        args.output.join(tables::STACKS).display(),
    )?;
    if gone > 0 {
        writeln!(err, "warning: {gone} more were deleted by retention since they were found, and are left out")?;
    }
    if is_partial {
        writeln!(err, "warning: the export is partial: the server could not read all there is, see above")?;
    }
    if !request.cursor.is_empty() {
        writeln!(err, "warning: there are more: raise --limit {} or narrow the window", args.limit)?;
    }
    Ok(())
}

/// Fetches a profile; none where it is not there any more.
async fn fetch(
    mut client: QueryServiceClient<Channel>,
    info: ProfileInfo,
) -> anyhow::Result<Option<(ProfileInfo, Vec<u8>)>> {
    let request = GetProfileRequest { id: info.id.clone(), ..GetProfileRequest::default() };
    match client.get_profile(request).await {
        Ok(answer) => Ok(Some((info, answer.into_inner().pprof.into()))),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(refused(status)).with_context(|| format!("profile {}", info.id)),
    }
}
