-- The customer ($1) types the code ($2). Returns the sale.
select hotspot.verify_otp($1::text::uuid, $2)::text as sale
