-- Operators write transactions, senders and recipients, read everything, and call what is for people. What happened while nothing was captured
-- (the plugin was removed, its data stayed) is made up for by a rebuild.
do $$
begin
    update statement.calendar set rebuild_due = true
    where exists (select from statement.transaction) and not exists (select from rowbeat.watch w where w.name = 'statement.transactions');
    if to_regrole('rowbeat_operator') is null then
        return;
    end if;
    grant select on all tables in schema statement to rowbeat_operator;
    grant insert, update, delete on statement.transaction, statement.sender, statement.recipient to rowbeat_operator;
    grant execute on function statement.to_jalali(date), statement.from_jalali(integer, integer, integer), statement.bucket_start(text, timestamptz),
        statement.bucket_key(text, date), statement.apply_changes(jsonb), statement.rebuild_summaries(boolean), statement.configure(text, text),
        statement.summary_points(text, text, text), statement.create_notification(text, text, text, jsonb), statement.resend(bigint) to rowbeat_operator;
end $$;
