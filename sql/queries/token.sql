-- Statements of `rowbeat token`.

-- name: create
-- $1 digest · $2 name · $3 operator · $4 plugins · $5 endpoints · $6 lifetime in seconds, or null.
insert into rowbeat.token (digest, name, operator, plugins, endpoints, expires_at)
values ($1, $2, $3, $4, $5, rowbeat.now_() + $6::double precision * interval '1 second')
returning expires_at

-- name: list
-- All, also revoked ones.
select jsonb_build_object('name', t.name, 'opens', case when t.operator then array['operator'] else t.plugins || t.endpoints end,
    'state', case when t.revoked_at is not null then 'revoked' when t.expires_at <= rowbeat.now_() then 'expired' else 'valid' end,
    'created_at', t.created_at, 'expires_at', t.expires_at, 'last_used_at', t.last_used_at) as token
from rowbeat.token t order by t.name, t.created_at

-- name: revoke
-- $1 name.
update rowbeat.token t set revoked_at = rowbeat.now_() where t.name = $1 and t.revoked_at is null returning t.name

-- name: unknown_scopes
-- $1 plugins · $2 endpoints: those that are not there.
select p.name from unnest($1::text[]) p (name) where not exists (select from rowbeat.plugin i where i.name = p.name and i.removed_at is null)
union all
select e.name from unnest($2::text[]) e (name)
where not exists (select from rowbeat.plugin_endpoint i where i.method || ' ' || i.path = e.name and i.auth = 'token')
