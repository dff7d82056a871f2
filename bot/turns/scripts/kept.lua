-- What is kept of ended turns.

-- Bytes of a turn's record beside its texts, and of the keys that lead from its messages to the thread.
local RECORD_BYTES = 2000
-- Without a history, texts expire so much later (ms) than the time for a repair.
local LAST_WORDS_MS = 60000

local function note_seen(thread)
  redis.call('SET', key('seen', thread), '1', 'PX', keep_ms(thread))
end

-- What makes a turn remembered; its id leaves the history, too.
local function drop_exchange(id)
  unset(id, 'question', 'question_files', 'answer', 'mixed', 'model', 'bytes')
  redis.call('DEL', key('ratings', id))
end

-- The bytes of files that were sent to the bot itself. A damaged record names none.
local function drop_uploads(id)
  pcall(function()
    for _, file in ipairs(cjson.decode(get(id, 'files') or '')) do redis.call('DEL', key('upload', file.id)) end
  end)
end

-- What has keys of its own beside a turn's record, without the ratings of what is remembered.
local function drop_beside(id)
  redis.call('DEL', key('context', id), key('files', id), key('steps', id), key('effects', id), key('thoughts', id))
end

-- All that was said, but what is shown: a repair may need that.
local function drop_words(id)
  drop_uploads(id)
  if redis.call('EXISTS', key('turn', id)) == 1 then set(id, 'text', '') end
  unset(id, 'files', 'instructions')
  drop_exchange(id)
  drop_beside(id)
end

local function forget_exchange(thread, id)
  drop_exchange(id)
  redis.call('LREM', key('aside', thread), 1, id)
  if redis.call('LREM', key('history', thread), 1, id) == 1 then note_seen(thread) end
end

-- The id of a turn stays known for so long (ms), and is not admitted again.
local function mark_dropped(id, duration)
  set(id, 'state', 'dropped')
  redis.call('PEXPIRE', key('turn', id), duration)
end

local function drop_posted(id, thread)
  local platform = platform_of(thread)
  for _, message in ipairs(ids_of(id, 'message_ids')) do redis.call('DEL', key('posted', platform, message)) end
end

-- All versions of a turn; none if there was never another one.
local function versions_of(id)
  local group = get(id, 'version_of')
  return group and redis.call('LRANGE', key('versions', group), 0, -1) or {}
end

local function leave_versions(id)
  local group = get(id, 'version_of')
  if group then redis.call('LREM', key('versions', group), 1, id) end
end

-- The turns to which only this one leads: what followed a version that is aside, or the versions that are aside of one
-- that is not.
local function turns_behind(id)
  if has(id, 'tail') then return ids_of(id, 'tail') end
  local found = {}
  for _, one in ipairs(versions_of(id)) do
    if one ~= id and has(one, 'tail') then table.insert(found, one) end
  end
  return found
end

-- The versions that are aside last as long as the thread.
local function keep_versions(thread)
  local aside, kept = key('aside', thread), {}
  for _, id in ipairs(redis.call('LRANGE', aside, 0, -1)) do
    local kinds = {'turn', 'context', 'files', 'effects', 'ratings', 'thoughts'}
    for _, kind in ipairs(kinds) do keep_in(thread, key(kind, id)) end
    local group = get(id, 'version_of')
    if group and not kept[group] then
      kept[group] = true
      keep_in(thread, key('versions', group))
      -- The open one may have no answer.
      for _, one in ipairs(versions_of(id)) do keep_in(thread, key('turn', one)) end
    end
  end
  keep_in(thread, aside)
end

-- The id stays known for a while, so that the turn is not admitted again. The record of a turn that has to be
-- repaired is still needed, and a regenerated one is counted again at its end.
local function discard(id)
  local turn = record(id)
  if not turn.thread then return end
  forget_exchange(turn.thread, id)
  if redis.call('ZSCORE', key('repairs', platform_of(turn.thread)), id) or is_open(turn) then return end
  for _, one in ipairs(turns_behind(id)) do discard(one) end
  leave_versions(id)
  drop_posted(id, turn.thread)
  redis.call('DEL', key('turn', id))
  drop_beside(id)
  redis.call('ZREM', key('turns', turn.thread), id)
  mark_dropped(id, LATE_ADMISSION_MS)
end

-- The bytes of these fields, and of the context.
local function bytes_of(id, ...)
  local size = 0
  for _, field in ipairs({...}) do
    size = size + redis.call('HSTRLEN', key('turn', id), field)
  end
  for _, line in ipairs(redis.call('LRANGE', key('context', id), 0, -1)) do size = size + #line end
  return size
end

-- The bytes of what was read of files.
local function bytes_of_files(id)
  local size, name = 0, key('files', id)
  for _, file in ipairs(redis.call('HKEYS', name)) do size = size + redis.call('HSTRLEN', name, file) end
  return size
end

-- Adds an ended turn to its person's list, and discards the oldest beyond `most_bytes`.
local function count_kept(id, person, most_bytes)
  local list = key('kept', person)
  local total = natural(string.match(redis.call('LINDEX', list, -1) or '', '^%d+'))
  total = total + RECORD_BYTES + bytes_of_files(id) + redis.call('HSTRLEN', key('thoughts', id), 'text')
  total = total + bytes_of(id, 'text', 'question', 'answer', 'mixed', 'shown', 'files', 'question_files')
  local mark = string.format('%.0f', total)
  redis.call('RPUSH', list, mark .. ' ' .. id)
  set(id, 'kept', mark)
  keep(list)
  while true do
    local upto, oldest = string.match(redis.call('LINDEX', list, 0), '^(%d+) (.*)$')
    if total - upto < most_bytes then return end
    redis.call('LPOP', list)
    -- A turn that was regenerated has a later entry.
    if get(oldest, 'kept') == upto then discard(oldest) end
  end
end

-- A limit of 0 exchanges means that nothing said outlives its turn: the record expires soon, and the id stays
-- known without it.
local function keep_ended(id, thread, limits)
  local name = key('turns', thread)
  redis.call('ZADD', name, now_ms(), id)
  redis.call('ZREMRANGEBYSCORE', name, '-inf', now_ms() - keep_ms(thread))
  keep_in(thread, name, key('turn', id), key('context', id), key('files', id), key('effects', id), key('thoughts', id))
  if limits.history > 0 then return end
  redis.call('DEL', key('thoughts', id))
  for _, kind in ipairs({'turn', 'context', 'files', 'effects'}) do
    redis.call('PEXPIRE', key(kind, id), limits.late_write_ms + LAST_WORDS_MS)
  end
  redis.call('SET', key('answered', id), '1', 'PX', keep_ms(thread))
end
