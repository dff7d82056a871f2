-- A worker renews its lease, and saves what it has used. Both are frequent, so this file needs no other.

local function holds(turn, fence)
  return turn.state == 'running' and turn.fence == fence and turn.thread
end

-- No worker can take a turn without a record. So its current worker continues, and only the end is not
-- remembered: otherwise half an answer would stay.
local function is_record_lost(id)
  return redis.call('EXISTS', key('turn', id)) == 0
end

-- A person's request to the worker of a turn: to restart, or to stop.
local function request_to(id)
  local known = redis.call('HMGET', key('turn', id), 'edited_since_take', 'stop')
  return known[1] and 'edited_since_take' or known[2] or ''
end

-- The tokens that all attempts have used so far: their number, and a line for each model; '' if it is as it was.
local function set_used(id, used, bill)
  if used ~= '' then set(id, 'used', used, 'bill', bill) end
end

-- A lease that has ended is renewed if no worker has taken the turn since: its fence is as it was.
function verbs.renew(id, fence, lease, used, bill)
  local turn = record(id)
  if is_record_lost(id) then return '' end
  if not holds(turn, fence) then return 'lost' end
  set_used(id, used, bill)
  make_ready_after(turn.thread, lease)
  return request_to(id)
end

-- Saves what a turn has used, before the model is asked.
function verbs.save_used(id, fence, used, bill)
  local turn = record(id)
  if is_record_lost(id) then return '' end
  if not holds(turn, fence) then return 'lost' end
  set_used(id, used, bill)
  return ''
end
