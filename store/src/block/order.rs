//! In which order a profile has its strings, functions, mappings and locations.
//!
//! Encoders number things as they come: the first location is that of the first sample's leaf, the first function that of the first
//! location. So orders are predicted as the order of first use: locations as the samples need them, functions and mappings as the
//! locations need them, strings as the records name them, walking the file. Only an order that is not as predicted is listed.
//!
//! [`Orders::replay`] finds the orders again from the tables and the columns of a profile; [`Orders::predict`] does the same while a
//! profile is written, and lists what differs. Both go through the same two walks, so that what is written is what will be read.

use afterglow_profile::model::{NONE, Profile};

use super::columns::{Meta, Samples};
use super::pattern::{self, Counts, key};
use super::symbols::{Header, Places, Symbols};
use super::varint::Damage;

/// The orders of one profile. The memory is used again for the next.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) strings: Order,
    pub(crate) functions: Order,
    pub(crate) mappings: Order,
    pub(crate) locations: Order,
    /// The number of the last profile that had each node of the stacks.
    seen_by: Vec<u32>,
    /// Where each node was written.
    pub(crate) written: Vec<Written>,
    /// The label sets whose strings were seen.
    label_sets: Vec<bool>,
    sample_needs: Vec<u32>,
    location_needs: Vec<u32>,
}

/// Where the ids of a node and its callers were written in the profile of this number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) profile: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// Which entries of a table a profile has, in its order, and where each of them stands in it.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// The entries.
    pub(crate) places: Vec<u32>,
    /// For each entry of the table, `profile << 32 | index`.
    index_of: Vec<u64>,
    /// Tells what the present profile has seen from what one before it had.
    profile: u64,
}

// === impl Order ===

impl Order {
    /// Begins a profile whose entries come from a table of `len`, in the order of `listed` if that is given.
    fn begin(&mut self, len: usize, listed: Option<&[u32]>) -> Result<(), Damage> {
        self.places.clear();
        self.index_of.resize(len, 0);
        self.profile += 1;
        if self.profile > u64::from(u32::MAX) {
            self.index_of.fill(0);
            self.profile = 1;
        }
        for (&place, i) in listed.into_iter().flatten().zip(0..) {
            if place as usize >= len || self.see(place) != i {
                return Err(Damage("an order lists an entry twice, or one that does not exist"));
            }
        }
        Ok(())
    }

    /// Returns the number of the present profile.
    pub(crate) fn profile(&self) -> u32 {
        self.profile as u32
    }

    /// Returns where an entry stands in the profile, and puts it last if it is not there yet.
    #[inline]
    fn see(&mut self, place: u32) -> u32 {
        let index = &mut self.index_of[place as usize];
        if *index >> 32 != self.profile {
            *index = self.profile << 32 | self.places.len() as u64;
            self.places.push(place);
        }
        *index as u32
    }

    /// Returns where an entry stands in the profile.
    #[inline]
    pub(crate) fn index(&self, place: u32) -> Result<u32, Damage> {
        match self.index_of.get(place as usize) {
            Some(&index) if index >> 32 == self.profile => Ok(index as u32),
            _ => Err(Damage("an order lacks an entry that is used")),
        }
    }
}

// === impl Orders ===

impl Orders {
    /// Finds the orders of a profile from its columns.
    ///
    /// # Errors
    /// The columns contradict the tables.
    pub(crate) fn replay(
        &mut self,
        symbols: &Symbols,
        samples: &Samples,
        header: &Header,
        meta: &Meta,
    ) -> Result<(), Damage> {
        let pattern = symbols.pattern(meta.pattern)?;
        self.find_entities(symbols, samples, meta)?;
        self.find_strings(symbols, samples, header, meta, pattern)
    }

    /// Finds the orders of a profile as they will be found from its columns, and lists in `meta` what is not as predicted. `places` are
    /// where the entries of the profile lie in the tables, in its order. Returns the pattern of its records.
    ///
    /// # Errors
    /// The profile has an order that cannot be said.
    pub(crate) fn predict(
        &mut self,
        symbols: &Symbols,
        samples: &Samples,
        header: &Header,
        (profile, places): (&Profile<'_>, &Places),
        meta: &mut Meta,
    ) -> Result<Vec<u8>, Damage> {
        self.find_entities(symbols, samples, meta)?;
        if self.locations.places != places.locations {
            // What follows is predicted from the locations in their own order.
            meta.locations = Some(places.locations.clone());
            self.find_entities(symbols, samples, meta)?;
        }
        let (functions, mappings) =
            (self.functions.places != places.functions, self.mappings.places != places.mappings);
        if functions || mappings {
            meta.functions = functions.then(|| places.functions.clone());
            meta.mappings = mappings.then(|| places.mappings.clone());
            self.find_entities(symbols, samples, meta)?;
        }
        let mut pattern = Vec::new();
        let counts = Counts { strings: Some(profile.strings.len()), ..self.counts(header) };
        pattern::write(&mut pattern, &profile.layout.records, &counts);
        self.find_strings(symbols, samples, header, meta, &pattern)?;
        if self.strings.places != places.strings {
            meta.strings = Some(places.strings.clone());
            self.find_strings(symbols, samples, header, meta, &pattern)?;
        }
        Ok(pattern)
    }

    /// Finds the order of locations, mappings and functions, as listed or else as predicted.
    fn find_entities(&mut self, symbols: &Symbols, samples: &Samples, meta: &Meta) -> Result<(), Damage> {
        self.locations.begin(symbols.locations.len(), meta.locations.as_deref())?;
        self.functions.begin(symbols.functions.len(), meta.functions.as_deref())?;
        self.mappings.begin(symbols.mappings.len(), meta.mappings.as_deref())?;
        let predicted = meta.locations.is_none();
        let profile = self.locations.profile();
        if profile == 1 {
            // The count of profiles starts, perhaps not for the first time.
            self.seen_by.clear();
            self.written.clear();
        }
        self.seen_by.resize(symbols.nodes.len(), 0);
        self.written.resize(symbols.nodes.len(), Written::default());
        self.sample_needs.clear();
        let mut needs = 0;
        for &stack in &samples.stacks {
            for (node, location) in symbols.nodes_of(stack) {
                let seen_by = &mut self.seen_by[node as usize - 1];
                if *seen_by == profile {
                    // A sample before was here, so the callers' locations have their places.
                    break;
                }
                *seen_by = profile;
                let index = if predicted { self.locations.see(location) } else { self.locations.index(location)? };
                needs = needs.max(index + 1);
            }
            self.sample_needs.push(needs);
        }
        let (functions_predicted, mappings_predicted) = (meta.functions.is_none(), meta.mappings.is_none());
        self.location_needs.clear();
        let mut needs = 0;
        for &place in &self.locations.places {
            let mapping = symbols.locations[place as usize].mapping;
            if mappings_predicted && mapping != NONE {
                self.mappings.see(mapping);
            }
            for line in symbols.lines_of(place).iter().filter(|line| line.function != NONE) {
                let index = if functions_predicted {
                    self.functions.see(line.function)
                } else {
                    self.functions.index(line.function)?
                };
                needs = needs.max(index + 1);
            }
            self.location_needs.push(needs);
        }
        Ok(())
    }

    /// Finds the order of the strings, as listed or else as predicted.
    fn find_strings(
        &mut self,
        symbols: &Symbols,
        samples: &Samples,
        header: &Header,
        meta: &Meta,
        pattern: &[u8],
    ) -> Result<(), Damage> {
        self.strings.begin(symbols.strings.len(), meta.strings.as_deref())?;
        if meta.strings.is_some() {
            return Ok(());
        }
        let mut strings = std::mem::take(&mut self.strings);
        let mut label_sets = std::mem::take(&mut self.label_sets);
        label_sets.clear();
        label_sets.resize(symbols.label_ends.len(), false);
        strings.see(0);
        // How many strings there are is what is to be found, so their records are left out.
        let counts = Counts { strings: None, ..self.counts(header) };
        let walked = pattern::walk(pattern, &counts, |key, i| {
            let mut see = |list: &[u32]| list.iter().for_each(|&string| _ = strings.see(string));
            match key {
                key::SAMPLE_TYPE => see(&[header.sample_types[i].kind, header.sample_types[i].unit]),
                key::PERIOD_TYPE => header.period_type.iter().for_each(|t| see(&[t.kind, t.unit])),
                key::SAMPLE => {
                    let set = samples.set(i);
                    if !std::mem::replace(&mut label_sets[set as usize], true) {
                        symbols.labels_of(set).iter().for_each(|label| see(&[label.key, label.str, label.num_unit]));
                    }
                }
                key::MAPPING => {
                    let mapping = symbols.mappings[self.mappings.places[i] as usize];
                    see(&[mapping.file, mapping.build_id]);
                }
                key::FUNCTION => {
                    let function = symbols.functions[self.functions.places[i] as usize];
                    see(&[function.name, function.system_name, function.file]);
                }
                key::COMMENT => see(&[header.comments[i]]),
                key::COMMENTS_PACKED => see(&header.comments),
                key::DROP_FRAMES => see(&[header.drop_frames]),
                key::KEEP_FRAMES => see(&[header.keep_frames]),
                key::DEFAULT_SAMPLE_TYPE => see(&[header.default_sample_type]),
                key::DOC_URL => see(&[header.doc_url]),
                _ => {}
            }
            Ok(())
        });
        (self.strings, self.label_sets) = (strings, label_sets);
        walked
    }

    /// Returns what the order of the records depends on.
    pub(crate) fn counts(&self, header: &Header) -> Counts<'_> {
        Counts {
            sample_types: header.sample_types.len(),
            mappings: self.mappings.places.len(),
            strings: Some(self.strings.places.len()),
            comments: header.comments.len(),
            sample_needs: &self.sample_needs,
            location_needs: &self.location_needs,
            functions: self.functions.places.len(),
        }
    }
}
