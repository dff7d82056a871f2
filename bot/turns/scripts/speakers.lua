-- The people who have spoken in a thread of the bot.

-- It matters whether one person or several have spoken in a thread.
local MOST_SPEAKERS = 10

-- Notes about a thread expire with its history: only questions and answers renew them.
local function note_speaker(thread, id)
  local name = key('speakers', thread)
  local known = redis.call('SCARD', name)
  if is_being_forgotten(platform_of(thread), id) then return end
  if id ~= '' and known < MOST_SPEAKERS then redis.call('SADD', name, id) end
  if known == 0 then keep(name) end
end

-- Notes that people have spoken in a thread, and returns how many have; 0 if the bot was never asked there.
-- `ours` is '1' if it is a thread of the bot for another reason.
function verbs.note_speakers(thread, ours, ...)
  local name = key('speakers', thread)
  if ours == '' and redis.call('EXISTS', name) == 0 then return 0 end
  for _, id in ipairs({...}) do note_speaker(thread, id) end
  return redis.call('SCARD', name)
end
