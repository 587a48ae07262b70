-- The setting zone is no table of the plugin: what it was when the check last followed it, and the zone that this means.
create table campaign.followed_zone (
    only_row  boolean primary key default true,
    setting   text not null,
    zone      text not null,
    constraint followed_zone_is_one check (only_row)
);
comment on table campaign.followed_zone is 'The setting zone as the check found it last.';
comment on column campaign.followed_zone.zone is 'The zone of whoever names none: the setting, or UTC when the server does not know it.';
insert into campaign.followed_zone (setting, zone) values ('UTC', 'UTC');
