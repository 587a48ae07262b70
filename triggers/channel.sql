-- Promises: who listens hears a new channel, and a removed one no longer, soon after the commit.
create or replace function rowbeat.announce_channel() returns trigger
language plpgsql set search_path = '' as $$
begin
    perform rowbeat.announce('channel');
    return null;
end $$;
comment on function rowbeat.announce_channel() is 'Tells the daemons that the channels to listen to changed.';

create or replace trigger announce_channel after insert or update or delete on rowbeat.channel
    for each statement execute function rowbeat.announce_channel();

create or replace trigger announce_channel after insert or update or delete on rowbeat.listening
    for each statement execute function rowbeat.announce_channel();
