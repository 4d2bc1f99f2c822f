//! Something for each site, as long as its process may still move it.
//!
//! A process is *over* when its end was told and a complete bin came after
//! that: no point of its sites can follow. What was kept for them is given up,
//! so that a session of ten thousand short processes takes what its living
//! ones need.
//!
//! # Invariants
//!
//! * Sites are numbered as in the file, each of one process.
//! * What was given up stays so: nothing stands of such a site.

/// Sites of a sheet, which is given up as a whole.
const SITES_PER_SHEET: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Standing<T> {
    sheets: Vec<Option<Box<Sheet<T>>>>,
    sites: u32,
    /// Sites that were not given up.
    open: usize,
    /// Sites of each process; `None` when they were given up.
    processes: Vec<Option<Vec<u32>>>,
    /// Processes whose end was told since the last complete bin...
    ended: Vec<u32>,
    /// ... and before it.
    over: Vec<u32>,
}

#[derive(Debug)]
struct Sheet<T> {
    states: Vec<T>,
    /// Which of them were given up, and how many.
    is_gone: Vec<bool>,
    gone: usize,
}

impl<T: Clone + Default> Standing<T> {
    /// A process joined.
    pub(crate) fn add_process(&mut self) {
        self.processes.push(Some(Vec::new()));
    }

    /// A site of a process came.
    pub(crate) fn add_site(&mut self, process: u32) {
        if (self.sites as usize).is_multiple_of(SITES_PER_SHEET) {
            self.sheets.push(Some(Box::new(Sheet {
                states: Vec::with_capacity(SITES_PER_SHEET),
                is_gone: Vec::with_capacity(SITES_PER_SHEET),
                gone: 0,
            })));
        }
        // A sheet is given up only when it is full.
        if let Some(Some(sheet)) = self.sheets.last_mut() {
            sheet.states.push(T::default());
            sheet.is_gone.push(false);
        }
        if let Some(Some(sites)) = self.processes.get_mut(process as usize) {
            sites.push(self.sites);
        }
        self.sites += 1;
        self.open += 1;
    }

    /// Processes and sites were lost up to these numbers; whose the sites are
    /// is not known.
    pub(crate) fn skip_to(&mut self, processes: u32, sites: u32) {
        while self.processes.len() < processes as usize {
            self.add_process();
        }
        while self.sites < sites {
            self.add_site(u32::MAX);
        }
    }

    /// A process's end was told.
    pub(crate) fn ended(&mut self, process: u32) {
        self.ended.push(process);
    }

    /// Every site's changes until now were told.
    pub(crate) fn completed(&mut self) {
        self.over.append(&mut self.ended);
    }

    /// Every process is over: the recording has ended.
    pub(crate) fn all_over(&mut self) {
        self.over = self.processes().collect();
        self.give_up();
    }

    /// Gives up what was kept for processes that are over.
    pub(crate) fn give_up(&mut self) {
        for process in std::mem::take(&mut self.over) {
            let sites = self.processes.get_mut(process as usize);
            for site in sites.and_then(Option::take).unwrap_or_default() {
                self.open -= 1;
                let place = &mut self.sheets[site as usize / SITES_PER_SHEET];
                if let Some(sheet) = place {
                    sheet.is_gone[site as usize % SITES_PER_SHEET] = true;
                    sheet.gone += 1;
                    if sheet.gone == SITES_PER_SHEET {
                        *place = None;
                    }
                }
            }
        }
    }

    /// How many sites there are that were not given up.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Processes that were not given up, rising.
    pub(crate) fn processes(&self) -> impl Iterator<Item = u32> {
        let all = (0..).zip(&self.processes);
        all.filter_map(|(id, sites)| sites.as_ref().map(|_| id))
    }

    /// Sites of a process that was not given up, rising.
    pub(crate) fn sites_of(&self, process: u32) -> &[u32] {
        let sites = self.processes.get(process as usize);
        sites.and_then(Option::as_deref).unwrap_or(&[])
    }

    /// What stands of a site, if it was not given up.
    pub(crate) fn get(&self, site: u32) -> Option<&T> {
        let sheet = self.sheets.get(site as usize / SITES_PER_SHEET)?.as_ref()?;
        let at = site as usize % SITES_PER_SHEET;
        let is_gone = *sheet.is_gone.get(at)?;
        sheet.states.get(at).filter(|_| !is_gone)
    }

    /// See [`Standing::get`].
    pub(crate) fn get_mut(&mut self, site: u32) -> Option<&mut T> {
        let sheet = self
            .sheets
            .get_mut(site as usize / SITES_PER_SHEET)?
            .as_mut()?;
        let at = site as usize % SITES_PER_SHEET;
        let is_gone = *sheet.is_gone.get(at)?;
        sheet.states.get_mut(at).filter(|_| !is_gone)
    }

    /// What stands of all sites that were not given up, rising.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let sheets = (0u32..).step_by(SITES_PER_SHEET).zip(&self.sheets);
        sheets
            .filter_map(|(first, sheet)| Some((first, sheet.as_ref()?)))
            .flat_map(|(first, sheet)| (first..).zip(sheet.states.iter().zip(&sheet.is_gone)))
            .filter_map(|(site, (state, is_gone))| (!is_gone).then_some((site, state)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processes_had_that_are_over_is_given_up() {
        let mut standing = Standing::<u64>::default();
        let many = 3 * SITES_PER_SHEET as u32;
        standing.add_process();
        standing.add_site(0);
        standing.add_process();
        for _ in 0..many {
            standing.add_site(1);
        }
        let stands = |standing: &mut Standing<u64>, site| {
            *standing.get_mut(site).unwrap() += 5;
            standing.iter().filter(|(_, value)| **value != 0).count()
        };
        assert_eq!(stands(&mut standing, 0), 1);
        assert_eq!(stands(&mut standing, 1), 2);

        standing.ended(1);
        standing.give_up();
        assert_eq!(
            standing.open(),
            many as usize + 1,
            "its last points may come"
        );
        standing.completed();
        standing.give_up();
        assert_eq!(standing.open(), 1);
        assert_eq!(standing.sheets.iter().flatten().count(), 2);
        assert_eq!(standing.get(2000), None);
        assert_eq!(standing.get(1), None, "beside one that stays");
        assert_eq!(standing.get(0), Some(&5));
        assert_eq!(standing.processes().collect::<Vec<_>>(), [0]);

        standing.skip_to(4, many + 10);
        assert_eq!(standing.open(), 10);
        assert_eq!(stands(&mut standing, many + 9), 2);
        assert_eq!(standing.get_mut(many + 10), None);
    }
}
