-- How far a sale ($1) is.
select jsonb_build_object('bundle', s.data_label, 'amount', trim_scale(s.amount), 'status', s.status, 'user', s.hotspot_username, 'error', s.last_error) as sale
from hotspot.sale s where s.id = $1::text::uuid
