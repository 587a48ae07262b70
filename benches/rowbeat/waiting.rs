//! Waiting: whether a large backlog is worked off as fast as a small one.

use crate::drain::backlog;
use crate::options::Options;
use crate::report::{Figure, progress};
use crate::server::Server;
use crate::tally::Tally;

pub async fn measure(server: &Server, options: &Options) -> Vec<Figure> {
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for run in 1..=options.runs {
        for (waiting, rates) in [(options.tasks, &mut small), (options.waiting, &mut large)] {
            progress(&format!("waiting, run {run}: {waiting} tasks"));
            backlog(server, "none", waiting).await;
            let tally = Tally::new(options.tasks.min(waiting));
            let daemon = server.daemon("drain", tally.handlers(), "").await;
            tally.reached().await;
            daemon.stop().await;
            rates.push(tally.rate());
        }
    }
    let case = |waiting| format!("{} of {waiting} waiting tasks", options.tasks.min(waiting));
    vec![
        Figure::new(case(options.waiting), "tasks/s", large).to(case(options.tasks), &small, Some(0.95)),
        Figure::new(case(options.tasks), "tasks/s", small),
    ]
}
