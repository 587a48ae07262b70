-- Every write to a watched table reads its row of rowbeat.capture: of a few rows faster one after the other than by the index, which the server
-- chooses once it knows how few they are. By default it would never look: there are too few changes. Locks: capture, shortly.

alter table rowbeat.capture set (autovacuum_analyze_threshold = 0, autovacuum_analyze_scale_factor = 0);
