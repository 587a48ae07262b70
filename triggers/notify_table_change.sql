-- The classic trigger function: a bare NOTIFY per change on the channel table_change_alert_updated, payload
-- "<table> <OPERATION>", for listeners that re-read the table themselves. `rowbeat watch add TABLE --notify` installs it
-- as <table>_trigger, after insert or update or delete, for each row. Best effort by nature (who does not listen hears
-- nothing) and every notifying commit takes a cluster-wide lock: a watch is the durable and cheaper way.
-- Promises: never fails the write, not even when the server's notification queue is full: then nothing is sent.
create or replace function rowbeat.notify_table_change() returns trigger
language plpgsql set search_path = '' as $$
begin
    if pg_notification_queue_usage() < 0.9 then
        perform pg_notify('table_change_alert_updated', tg_table_name || ' ' || tg_op);
    end if;
    return null;
end $$;
comment on function rowbeat.notify_table_change() is 'Notifies table_change_alert_updated with "<table> <OPERATION>".';
