//! What the answers to all questions have in common.

use afterglow_proto::v1;
use prost::Message as _;

use super::Fetched;

/// An answer, as it is counted and explained.
pub(super) trait Answer {
    /// Returns whether some stored data could not be read for it.
    fn is_partial(&self) -> bool;

    /// Returns how many bytes it takes, about.
    fn bytes(&self) -> u64;

    /// Takes in what it cost; an answer that has no place for that drops it.
    fn explain(&mut self, explain: v1::Explain);
}

macro_rules! answers {
    (explained: $($explained:ident),*; plain: $($plain:ident),*) => {
        $(impl Answer for v1::$explained {
            fn is_partial(&self) -> bool {
                self.completeness.as_ref().is_some_and(|of| of.partial)
            }

            fn bytes(&self) -> u64 {
                self.encoded_len() as u64
            }

            fn explain(&mut self, explain: v1::Explain) {
                self.explain = Some(explain);
            }
        })*
        $(impl Answer for v1::$plain {
            fn is_partial(&self) -> bool {
                self.completeness.as_ref().is_some_and(|of| of.partial)
            }

            fn bytes(&self) -> u64 {
                self.encoded_len() as u64
            }

            fn explain(&mut self, _explain: v1::Explain) {}
        })*
    };
}

answers! {
    explained: SearchResponse, MergeResponse, DiffResponse, SeriesResponse, TopResponse, FunctionResponse, RegressionsResponse,
        StatisticsResponse;
    plain: StatsResponse, ProfileTypesResponse, ServicesResponse, LabelNamesResponse, LabelValuesResponse
}

impl Answer for v1::MergeShareResponse {
    fn is_partial(&self) -> bool {
        false
    }

    fn bytes(&self) -> u64 {
        self.encoded_len() as u64
    }

    fn explain(&mut self, _explain: v1::Explain) {}
}

impl Answer for Fetched {
    fn is_partial(&self) -> bool {
        false
    }

    fn bytes(&self) -> u64 {
        self.pprof.as_ref().map_or(0, |pprof| pprof.len() as u64)
    }

    fn explain(&mut self, _explain: v1::Explain) {}
}
