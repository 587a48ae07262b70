-- Tokens: who may call endpoints over HTTP.
--
-- Only a digest is kept: a secret is 256 random bits, so a plain SHA-256 of it cannot be turned around, and a lookup by it tells
-- nothing by the time it takes. Revoked tokens stay as rows: as long as there is one, nobody is an operator without a token.
-- Locks: a new table.

create table rowbeat.token (
    digest        bytea primary key,
    name          text not null,
    operator      boolean not null default false,
    plugins       text[] not null default '{}',
    endpoints     text[] not null default '{}',
    created_at    timestamptz not null default now(),
    expires_at    timestamptz,
    last_used_at  timestamptz,
    revoked_at    timestamptz,
    constraint token_digest_is_sha256 check (octet_length(digest) = 32),
    constraint token_name_fits check (name ~ '^[^[:space:][:cntrl:]]{1,80}$'),
    constraint token_opens_something check (operator or plugins <> '{}' or endpoints <> '{}')
);
create unique index token_name on rowbeat.token (name) where revoked_at is null;
comment on table rowbeat.token is 'Tokens for endpoints: rowbeat token create. No row at all: on the loopback everybody is the operator.';
comment on column rowbeat.token.digest is 'SHA-256 of the secret, which is shown once and kept nowhere.';
comment on column rowbeat.token.name is 'Who it is: the actor of its requests.';
comment on column rowbeat.token.operator is 'It opens everything.';
comment on column rowbeat.token.plugins is 'It opens the endpoints with auth = "token" of these plugins.';
comment on column rowbeat.token.endpoints is 'It opens these endpoints with auth = "token": GET /path/{parameter}.';
comment on column rowbeat.token.created_at is 'When it was made.';
comment on column rowbeat.token.expires_at is 'From when on it opens nothing; null: never.';
comment on column rowbeat.token.last_used_at is 'When it was used last, to the minute.';
comment on column rowbeat.token.revoked_at is 'When it was revoked.';
