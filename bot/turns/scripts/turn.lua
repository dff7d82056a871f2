-- What the record of a turn leads to.

-- The messages of a turn that its workers have deleted, or are about to.
local function removed_messages(id)
  local removed = decoded(redis.call('HGET', key('turn', id), 'more') or '').removed
  return type(removed) == 'table' and removed or {}
end

local function continued_by(id)
  return ids_in(redis.call('HGET', key('turn', id), 'continued') or '')
end

-- The turns that wait behind one which was taken, without those that are answered with it.
local function waiting_behind(id, thread)
  local waiting, own = {}, {}
  for _, one in ipairs(joined_to(id)) do own[one] = true end
  for _, one in ipairs(redis.call('LRANGE', key('mailbox', thread), 1, -1)) do
    if not own[one] and redis.call('EXISTS', key('turn', one)) == 1 then table.insert(waiting, one) end
  end
  return waiting
end

-- The body stays as it is, so additions to the turn's place have a field of their own.
local function add_to_place(id, added)
  local known = decoded(redis.call('HGET', key('turn', id), 'place_changes') or '')
  for name, value in pairs(added) do known[name] = value end
  redis.call('HSET', key('turn', id), 'place_changes', cjson.encode(known))
end

function verbs.others_wait(id, thread)
  return #waiting_behind(id, thread) > 0 and 1 or 0
end
